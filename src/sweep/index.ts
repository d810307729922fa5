/**
 * Learning-rate sweeps: the same short run at several rates. Each rate is a run folder of its own,
 * so a sweep that was killed continues where it stopped, with the same results bit for bit.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { KindlingError } from '../errors'
import { abortSignal, callback, checked } from '../options'
import { nonFiniteStep } from '../runs/inspect'
import type { ResolvedOptions, TrainerOptions } from '../training/config'
import type { GivenOptions } from '../training/config'
import { fromCamelCase, resolveOptions } from '../training/resolve-options'
import type { RunConfig } from '../training/run-config'
import { RunFolder } from '../training/run-folder'
import { Trainer } from '../training/trainer'
import { divergenceOf, type LossLine } from './divergence'
import { SweepState, defaultFolder, sharedOptions, type SweepResult } from './state'

export type { SweepResult } from './state'

/** How far a sweep has come. */
export interface SweepProgress {
  /** The rate of the current run. */
  lr: number
  /** Updates done so far over all rates; a run that was stopped early counts in full. */
  done: number
  /** Updates over all rates. */
  total: number
  /** Training loss of the last update, in nats per token. */
  loss: number
}

/** Options of `sweep`, beside those of the runs. */
export interface SweepOptions {
  /** Learning rates to compare. Default 1e-4, 3e-4, 1e-3, 3e-3, 1e-2. */
  rates?: readonly number[]
  /** Updates per run. Default 100. */
  steps?: number
  /** Folder of the sweep. Default: `runs/sweep-...`, named after the options. */
  out?: string
  /** Receives each result, including those of an earlier call. */
  onResult?: (result: SweepResult) => void
  /** Called after each update. */
  onProgress?: (progress: SweepProgress) => void
  /** Receives sentences for people. */
  onMessage?: (text: string) => void
  /**
   * Receives the progress of reading a corpus: what it is read for, bytes done, and bytes in total.
   */
  onRead?: (what: string, done: number, total: number) => void
  /** Ends the sweep with `ERR_CANCELLED` after the current update, which is saved. */
  signal?: AbortSignal
}

/** Options of the runs of a sweep: those of `Trainer`, without what the sweep sets itself. */
export type SweepRunOptions = Omit<
  TrainerOptions,
  'lr' | 'maxSteps' | 'run' | 'resume' | 'checkpoint' | 'stopAtStep'
>

/** A sweep's results, in the order of the rates, and its folder. */
export interface SweepSummary {
  /** One result per rate. */
  results: SweepResult[]
  /** The folder that holds sweep.json and the runs. */
  out: string
}

const DEFAULT_RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
const DEFAULT_STEPS = 100
/** Metrics lines per run: enough for a curve. */
const LINES = 50
/** Checkpoints per run, from which a killed sweep continues. */
const CHECKPOINTS = 4

const schema = z.strictObject({
  rates: z.array(z.number().positive()).min(1).default(DEFAULT_RATES),
  steps: z.int().min(1).default(DEFAULT_STEPS),
  out: z.string().min(1).optional(),
  onResult: callback<(result: SweepResult) => void>().optional(),
  onProgress: callback<(progress: SweepProgress) => void>().optional(),
  onMessage: callback<(text: string) => void>().optional(),
  onRead: callback<(what: string, done: number, total: number) => void>().optional(),
  signal: abortSignal.optional(),
})

/**
 * Trains once per rate, with everything else the same. Called again with the same options, it does
 * only what is missing. A run that diverges is stopped early.
 *
 * @example
 * const { results } = await sweep({ rates: [1e-3, 3e-3], steps: 200 }, { corpus: 'book.txt' })
 *
 * @throws KindlingError `ERR_RESUME_MISMATCH` if `out` holds a sweep with other options,
 * `ERR_CANCELLED`, and those of `Trainer`.
 */
export async function sweep(
  options: SweepOptions,
  runOptions: SweepRunOptions,
): Promise<SweepSummary> {
  const given = checked('sweep: run options', z.looseObject({}), runOptions)
  return sweepOf(options, fromCamelCase(given as SweepRunOptions))
}

/** Like `sweep`, with the options of the runs in snake_case. */
export async function sweepOf(options: SweepOptions, given: GivenOptions): Promise<SweepSummary> {
  const { rates, steps, out, signal, ...events } = checked('sweep', schema, options)
  const distinct = [...new Set(rates)]
  const plans = distinct.map((lr) => planOf(lr, steps, given))
  const shared = sharedOptions(plans[0]!)
  const state = await SweepState.open(out ?? defaultFolder(shared), shared)
  const results: SweepResult[] = []
  const total = steps * distinct.length
  for (const [i, lr] of distinct.entries()) {
    const onStep = (step: number, loss: number): void =>
      events.onProgress?.({ lr, done: i * steps + step, total, loss })
    const others = distinct.filter((rate) => rate !== lr).map((rate) => state.runAt(rate))
    const work = new RateRun(state.runAt(lr), plans[i]!, { ...events, onStep, signal, others })
    let result = state.resultAt(lr)
    if (result === undefined) {
      result = { lr, ...(await work.finish()) }
      await state.record(result)
    }
    results.push(result)
    events.onResult?.(result)
  }
  return { results, out: state.path }
}

/** The options of the run at one rate. */
function planOf(lr: number, steps: number, given: GivenOptions): ResolvedOptions {
  return resolveOptions({
    lr_min: lr / 10,
    log_interval: Math.max(1, Math.floor(steps / LINES)),
    save_interval: Math.max(1, Math.ceil(steps / CHECKPOINTS)),
    sample_interval: 0,
    keep: 1,
    ...definedOf(given),
    lr,
    max_steps: steps,
  })
}

function definedOf(given: GivenOptions): GivenOptions {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

interface RateEvents extends Pick<SweepOptions, 'onMessage' | 'onRead'> {
  onStep: (step: number, loss: number) => void
  signal: AbortSignal | undefined
  /** Folders of the runs at the other rates. */
  others: readonly string[]
}

/** The run at one rate, which is started, continued, or only evaluated. */
class RateRun {
  #lines: LossLine[] = []

  constructor(
    private readonly path: string,
    private readonly plan: ResolvedOptions,
    private readonly events: RateEvents,
  ) {}

  /** Trains to the end, or until the run diverges. */
  async finish(): Promise<Omit<SweepResult, 'lr'>> {
    const isBegun = existsSync(join(this.path, 'config.json'))
    if (isBegun) this.#lines = new RunFolder(this.path).readMetrics()
    const before = divergenceOf(this.#lines, false)
    if (before !== null) return this.#diverged(before, this.#lines.at(-1)!)
    const diverged = new AbortController()
    const { signal } = this.events
    try {
      const { loss, valLoss, steps, interrupted } = await this.#trainer(isBegun, diverged).run({
        signal: signal ? AbortSignal.any([signal, diverged.signal]) : diverged.signal,
      })
      const reason = divergenceOf(this.#lines, !interrupted)
      if (reason !== null) return this.#diverged(reason, { step: steps, loss: loss ?? NaN })
      if (interrupted) throw stopped(this.path, steps)
      const run = this.path
      return { loss, valLoss, diverged: false, reason: null, steps, run }
    } catch (error) {
      if (!(error instanceof KindlingError) || error.code !== 'ERR_NON_FINITE') throw error
      const step = nonFiniteStep(this.path) ?? 0
      return this.#diverged(`not finite at step ${step}`, { step, loss: NaN })
    }
  }

  #trainer(isBegun: boolean, diverged: AbortController): Trainer {
    const { options, given } = this.plan
    const { onMessage, onRead, onStep, others } = this.events
    const trainer = new Trainer({
      options: { ...options, run: this.path, resume: isBegun },
      given: new Set([...given, 'run', 'resume']),
      // All rates train the same model, wherever the sweep is resumed.
      isAutomatic: false,
    })
    if (onMessage) trainer.on('message', onMessage)
    if (onRead) trainer.on('progress', onRead)
    trainer.on('start', (config) => checkSameData(this.path, config, others))
    trainer.on('step', ({ step, loss }) => onStep(step, loss))
    trainer.on('metrics', (line) => {
      // A resumed run writes the lines after its checkpoint again.
      this.#lines = [...this.#lines.filter(({ step }) => step < line.step), line]
      if (divergenceOf(this.#lines, false) !== null) diverged.abort()
    })
    return trainer
  }

  #diverged(reason: string, { step, loss }: LossLine): Omit<SweepResult, 'lr'> {
    const last = Number.isFinite(loss) ? loss : null
    const run = this.path
    return { loss: last, valLoss: null, diverged: true, reason, steps: step, run }
  }
}

function stopped(run: string, steps: number): KindlingError {
  return new KindlingError(
    'ERR_CANCELLED',
    `stopped in ${run} at step ${steps}, which is saved; run the same command again to continue`,
  )
}

/**
 * Checks that a run trains on the data of the runs at other rates, which an earlier call may have
 * made.
 *
 * @throws KindlingError `ERR_RESUME_MISMATCH`.
 */
function checkSameData(run: string, { identity }: RunConfig, others: readonly string[]): void {
  const other = others.find((path) => existsSync(join(path, 'config.json')))
  if (other === undefined) return
  const expected = new RunFolder(other).readConfig().identity
  if (expected === undefined || isDeepStrictEqual(identity, expected)) return
  throw new KindlingError(
    'ERR_RESUME_MISMATCH',
    `the data has changed since ${other} was trained; restore it and remove ${run}, or choose ` +
      'another --out',
  )
}
