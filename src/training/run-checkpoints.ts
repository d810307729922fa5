/**
 * The checkpoints of a run: checkpoints/step-<8 digits>/; `latest`, which names the newest; and
 * `best`, which names the one with the lowest validation loss. `latest` is a hint: if it is missing
 * or its checkpoint cannot be read, the newest readable checkpoint is loaded.
 */
import { existsSync } from 'node:fs'
import { copyFile, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { toCamelCase } from '../case'
import { KindlingError } from '../errors'
import {
  fileOperation,
  makeFolder,
  makeOneFolder,
  readText,
  syncFolder,
  writeFileAtomic,
} from '../files'
import { problemsIn } from '../options'
import type { MetricsLine } from './metrics'
import type { SpikeState } from './spikes'

/** The part of a metrics line that is known before the evaluation. */
const metricsSchema = z.strictObject({
  step: z.int().min(1),
  tokens: z.int().min(1),
  loss: z.number(),
  lr: z.number(),
  grad_norm: z.number(),
  skipped_updates: z.int().min(1).optional(),
  tokens_per_second: z.number(),
  mfu: z.number().optional(),
  elapsed_s: z.number(),
})

const stateSchema = z.looseObject({
  format_version: z.int().min(1),
  iteration: z.int().min(0),
  run: z
    .looseObject({
      loss_sum: z.number().default(0),
      loss_count: z.int().min(0).default(0),
      elapsed_s: z.number().min(0).default(0),
      best: z.strictObject({ step: z.int().min(1), val_loss: z.number() }).optional(),
      unfinished_line: metricsSchema.optional(),
      spikes: z
        .strictObject({ losses: z.array(z.number()), grad_norms: z.array(z.number()) })
        .optional(),
      skipped_updates: z.int().min(0).optional(),
    })
    .default({ loss_sum: 0, loss_count: 0, elapsed_s: 0 }),
})

/** What the training loop keeps in a checkpoint, under `run` in state.json. */
export interface SavedLoop {
  lossSum: number
  lossCount: number
  elapsedS: number
  /** The checkpoint with the lowest validation loss so far. */
  best?: BestCheckpoint
  /** The metrics line of this step, if the run was interrupted before its evaluation was done. */
  unfinishedLine?: MetricsLine
  /** Losses and norms that the next steps are compared with, if spikes are skipped. */
  spikes?: SpikeState
  /** Updates skipped since the last metrics line. */
  skippedUpdates?: number
}

/** A checkpoint of a run. */
export interface FoundCheckpoint {
  path: string
  step: number
}

/** The checkpoint of an evaluated step, and its validation loss. */
export interface BestCheckpoint {
  step: number
  valLoss: number
}

/** Which checkpoints a run keeps. */
export interface Retention {
  /** Number of newest checkpoints. */
  keep: number
  /** Also those whose step is a multiple of this; 0: none. */
  keepEvery: number
  /** Also the one of this step, which `best` then names. */
  best?: number | null
}

/** Names of temporary folders: one being removed, and those of crates/kindling-core/src/staging. */
const LEFTOVER = /^\.step-\d+\.(removed|\d+-\d+\.(partial|new))$/

/** Finds, keeps and removes the checkpoints of a run's folder. */
export class RunCheckpoints {
  readonly #run: string
  readonly #folder: string
  readonly #latest: string
  readonly #best: string
  /** Old checkpoints that could not be removed. */
  readonly #fixed = new Set<number>()

  constructor(run: string) {
    this.#run = run
    this.#folder = join(run, 'checkpoints')
    this.#latest = join(run, 'latest')
    this.#best = join(run, 'best')
  }

  path(step: number): string {
    return join(this.#folder, checkpointName(step))
  }

  /** Returns the steps that have a checkpoint, in ascending order. */
  async steps(): Promise<number[]> {
    if (!existsSync(this.#folder)) return []
    const names = await fileOperation('read', this.#folder, () => readdir(this.#folder))
    return names
      .map(stepOfName)
      .filter((step) => step !== null)
      .sort((a, b) => a - b)
  }

  /** Returns the step that `latest` names, null if it names none. */
  latestStep(): number | null {
    return this.#named(this.#latest)
  }

  /** Returns the step that a file names. The file is only a hint: null if it cannot be read. */
  #named(file: string): number | null {
    try {
      return stepOfName(readText(file, 'ERR_INVALID_CHECKPOINT').trim())
    } catch {
      return null
    }
  }

  /**
   * Loads the checkpoint that `latest` names, or else the newest one that can be read.
   *
   * @param load - loads a checkpoint; returns its step.
   * @param say - receives a sentence about each checkpoint that could not be read.
   * @returns null if the run has no checkpoint yet.
   * @throws KindlingError `ERR_INVALID_CHECKPOINT` if none can be read.
   */
  async loadNewest<T>(
    load: (found: FoundCheckpoint) => Promise<T>,
    say: (text: string) => void = () => {},
  ): Promise<(FoundCheckpoint & { loaded: T }) | null> {
    let firstError: unknown
    for (const step of await this.#inOrder(say)) {
      const found = { path: this.path(step), step }
      try {
        return { ...found, loaded: await load(found) }
      } catch (error) {
        if (!isUnreadable(error)) throw error
        firstError ??= error
        say(`${error.message}; trying an earlier checkpoint`)
      }
    }
    if (firstError === undefined) return null
    throw new KindlingError(
      'ERR_INVALID_CHECKPOINT',
      `no checkpoint in ${this.#folder} can be read; restore one from a copy, or start a new run`,
      { cause: firstError },
    )
  }

  /** Returns the step of the checkpoint to load first; null if there is none. */
  async newestStep(): Promise<number | null> {
    return (await this.#inOrder(() => {}))[0] ?? null
  }

  /** The checkpoint that `latest` names first, then the others from the newest to the oldest. */
  async #inOrder(say: (text: string) => void): Promise<number[]> {
    const steps = (await this.steps()).toReversed()
    const latest = this.latestStep()
    const first = steps.filter((step) => step === latest)
    if (first.length === 0 && steps.length > 0) {
      const reason =
        latest === null ? 'names no checkpoint' : `names a missing one (step ${latest})`
      say(`${this.#latest} ${reason}; using the newest checkpoint, of step ${steps[0]}`)
    }
    return [...first, ...steps.filter((step) => step !== latest)]
  }

  /**
   * Reads what the training loop keeps in the checkpoint of `step`.
   *
   * @throws KindlingError `ERR_INVALID_CHECKPOINT`.
   */
  async readLoop(step: number): Promise<SavedLoop> {
    const path = join(this.path(step), 'state.json')
    const damaged = (reason: string): KindlingError =>
      new KindlingError('ERR_INVALID_CHECKPOINT', `${path} is damaged: ${reason}`)
    const text = readText(path, 'ERR_INVALID_CHECKPOINT')
    let json: unknown
    try {
      json = JSON.parse(text)
    } catch (error) {
      throw damaged(error instanceof Error ? error.message : String(error))
    }
    const parsed = stateSchema.safeParse(json)
    if (!parsed.success) throw damaged(problemsIn(parsed.error))
    const { iteration, run } = parsed.data
    if (iteration !== step) throw damaged(`it is of step ${iteration}`)
    return toCamelCase(run) as SavedLoop
  }

  /**
   * Makes the checkpoint of `step` the latest, and removes old ones. It keeps the newest `keep` up
   * to this step, this one, the best, multiples of `keepEvery`, all later ones, and those that
   * cannot be removed.
   *
   * @param say - receives a sentence about each checkpoint that cannot be removed.
   */
  async setLatest(
    step: number,
    { keep, keepEvery, best = null }: Retention,
    say: (text: string) => void = () => {},
  ): Promise<void> {
    await writeFileAtomic(this.#latest, `${checkpointName(step)}\n`)
    await this.setBest(best)
    const steps = (await this.steps()).filter((saved) => saved <= step)
    const old = steps
      .slice(0, Math.max(0, steps.length - keep))
      .filter((saved) => saved !== step && saved !== best)
      .filter((saved) => !(keepEvery > 0 && saved % keepEvery === 0))
      .filter((saved) => !this.#fixed.has(saved))
    for (const saved of old) await this.#remove(saved, say)
  }

  /** Makes `best` name the checkpoint of `step`; null removes `best`. */
  async setBest(step: number | null): Promise<void> {
    if (step === null) {
      await fileOperation('write', this.#best, () => rm(this.#best, { force: true }))
    } else if (this.#named(this.#best) !== step) {
      await writeFileAtomic(this.#best, `${checkpointName(step)}\n`)
    }
  }

  /** Removes a checkpoint. It is renamed first, so that a kill never leaves a half-removed one. */
  async #remove(step: number, say: (text: string) => void): Promise<void> {
    const path = this.path(step)
    const trash = join(this.#folder, `.${checkpointName(step)}.removed`)
    const work = async (): Promise<void> => {
      await rm(trash, { recursive: true, force: true })
      await rename(path, trash)
      await rm(trash, { recursive: true, force: true })
    }
    if (!(await isRemoved(path, work, say))) this.#fixed.add(step)
  }

  /**
   * Removes what a process left behind that was killed while it wrote or removed a checkpoint. The
   * caller has locked the run, so no other process writes here. A checkpoint that was moved aside
   * to be replaced (`-old.partial`) stays: it may be the only copy, and the next save of its step
   * moves it back.
   *
   * @param say - receives a sentence about each folder that cannot be removed.
   */
  async removeTrash(say: (text: string) => void = () => {}): Promise<void> {
    if (!existsSync(this.#folder)) return
    const names = await fileOperation('read', this.#folder, () => readdir(this.#folder))
    for (const name of names.filter((name) => LEFTOVER.test(name))) {
      const path = join(this.#folder, name)
      await isRemoved(path, () => rm(path, { recursive: true, force: true }), say)
    }
  }

  /**
   * Makes an earlier checkpoint the latest, and moves those after it, with a copy of the metrics,
   * to checkpoints/aside-<time>/. They are moved before `latest` is updated, since checkpoints
   * later than `latest` may be replaced.
   *
   * @returns that folder, null if there are no later ones.
   */
  async branchFrom(step: number): Promise<string | null> {
    const later = (await this.steps()).filter((saved) => saved > step)
    const aside = later.length === 0 ? null : await this.#moveAside(later)
    await writeFileAtomic(this.#latest, `${checkpointName(step)}\n`)
    return aside
  }

  async #moveAside(steps: readonly number[]): Promise<string> {
    const aside = await unusedFolder(join(this.#folder, `aside-${timestamp()}`))
    const metrics = join(this.#run, 'metrics.jsonl')
    await fileOperation('write', aside, async () => {
      if (existsSync(metrics)) await copyFile(metrics, join(aside, 'metrics.jsonl'))
      for (const saved of steps) await rename(this.path(saved), join(aside, checkpointName(saved)))
    })
    for (const folder of [aside, this.#folder]) await syncFolder(folder)
    return aside
  }
}

/**
 * Runs `work`, which removes `path`. A failure is only reported, since the run can continue with
 * more files on its disk.
 */
async function isRemoved(
  path: string,
  work: () => Promise<void>,
  say: (text: string) => void,
): Promise<boolean> {
  try {
    await work()
    return true
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    say(`cannot remove ${path}: ${reason}; going on`)
    return false
  }
}

/**
 * Returns the run and the step of a checkpoint: RUN/checkpoints/step-00000100, or RUN/best or
 * RUN/latest, which name one.
 *
 * @throws KindlingError `ERR_USAGE` if the path is none of these, `ERR_NOT_FOUND` if the run has no
 * best or latest checkpoint.
 */
export function locateCheckpoint(path: string): { run: string; step: number } {
  const [name, folder] = [basename(resolve(path)), dirname(resolve(path))]
  if (name === 'best' || name === 'latest') return { run: folder, step: namedStep(path) }
  const step = stepOfName(name)
  if (step === null || basename(folder) !== 'checkpoints') {
    throw new KindlingError(
      'ERR_USAGE',
      `${path} is not a checkpoint of a run; name one as RUN/checkpoints/step-00000100 or RUN/best`,
    )
  }
  return { run: dirname(folder), step }
}

function namedStep(file: string): number {
  if (!existsSync(file)) {
    const reason =
      basename(file) === 'best' ? 'no checkpoint was saved at an evaluated step' : 'train first'
    throw new KindlingError('ERR_NOT_FOUND', `${file} does not exist: ${reason}`)
  }
  const text = readText(file, 'ERR_INVALID_CHECKPOINT')
  const step = stepOfName(text.trim())
  if (step !== null) return step
  throw new KindlingError('ERR_INVALID_CHECKPOINT', `${file} is damaged: it names no checkpoint`)
}

/** Returns the current UTC time for a folder name, such as 2026-01-31-235959. */
export function timestamp(): string {
  return new Date().toISOString().slice(0, 19).replace('T', '-').replaceAll(':', '')
}

/**
 * Creates a folder with this name, or with the first free suffix `-2`, `-3`, ...; returns its path.
 */
export async function unusedFolder(path: string): Promise<string> {
  await makeFolder(dirname(path))
  for (let n = 1; ; n++) {
    const name = n === 1 ? path : `${path}-${n}`
    if (await makeOneFolder(name)) return name
  }
}

/** Returns the name of the checkpoint folder of a step. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, '0')}`
}

function stepOfName(name: string): number | null {
  const step = Number(/^step-(\d{8,15})$/.exec(name)?.[1])
  return Number.isSafeInteger(step) && checkpointName(step) === name ? step : null
}

/**
 * Returns whether a checkpoint is damaged or incomplete, so that an earlier one should be tried.
 */
function isUnreadable(error: unknown): error is KindlingError {
  return (
    error instanceof KindlingError &&
    (error.code === 'ERR_INVALID_CHECKPOINT' || error.code === 'ERR_NOT_FOUND')
  )
}
