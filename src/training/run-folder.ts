/**
 * The folder of a run: config.json, metrics.jsonl, `lock` while a process trains in it, `latest` and
 * checkpoints/ (see run-checkpoints.ts), and tokenizer/. The files are in snake_case, the library's
 * objects in camelCase.
 */
import { existsSync } from 'node:fs'
import { appendFile, open, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { toCamelCase, toSnakeCase } from '../case'
import { KindlingError } from '../errors'
import { writeCompanions, type Companions } from '../exchange/companions'
import {
  fileOperation,
  makeFolder,
  makeOneFolder,
  readText,
  syncFolder,
  writeFileAtomic,
} from '../files'
import { Tokenizer } from '../tokenizer'
import type { MetricsLine } from './metrics'
import { RunCheckpoints, unusedFolder } from './run-checkpoints'
import { parseRunConfig, type RunConfig } from './run-config'
import { RunLock, isAbandonedClaim } from './run-lock'
import { sealedJson } from './sealed-json'

/** Reads and writes a run's folder. All files but metrics.jsonl are written atomically. */
export class RunFolder {
  readonly checkpoints: RunCheckpoints
  /** Folders that were created for this run, outermost first. */
  #made: string[] = []
  #lock: RunLock | null = null
  /** This process began the run. */
  #isClaimed = false

  constructor(readonly path: string) {
    this.checkpoints = new RunCheckpoints(path)
  }

  /** Folder of the run's tokenizer and of the files that came with an imported model. */
  get tokenizerPath(): string {
    return join(this.path, 'tokenizer')
  }

  get exists(): boolean {
    return existsSync(this.path)
  }

  /**
   * Creates the folder of a new run and locks it. If several processes try, only one succeeds.
   *
   * @param path - default: the first free name of `fallback`, `fallback-2`, ...
   * @throws KindlingError `ERR_RUN_EXISTS`, `ERR_NOT_WRITABLE`.
   */
  static async claim(
    path: string | undefined,
    fallback: string,
    say: (text: string) => void,
  ): Promise<RunFolder> {
    const parents = await makeFolder(dirname(path ?? fallback))
    const folder = new RunFolder(path ?? (await unusedFolder(fallback)))
    folder.#made = [...parents, folder.path]
    if (path !== undefined && !(await makeOneFolder(path))) {
      if (existsSync(folder.#configPath) || !isAbandonedClaim(path)) throw runExists(path)
      folder.#made = parents
    }
    folder.#lock = RunLock.take(folder.path, say)
    if (existsSync(folder.#configPath)) {
      folder.release()
      throw runExists(folder.path)
    }
    folder.#isClaimed = true
    return folder
  }

  /** Locks the folder of a run, to resume it. */
  lock(say: (text: string) => void): void {
    this.#lock = RunLock.take(this.path, say)
  }

  /** Checks that no other process has taken the run. */
  verifyLock(): void {
    this.#lock?.verify(this.path)
  }

  /** Unlocks the folder. */
  release(): void {
    this.#lock?.release()
    this.#lock = null
  }

  /** Unlocks and removes the folder of a new run that could not start; others it only unlocks. */
  async abandon(): Promise<void> {
    if (this.#isClaimed) {
      // Also in a folder that a killed process left: it held nothing else.
      const files = ['tokenizer', 'checkpoints', 'latest', 'tensorboard', 'system.json']
      for (const name of [...files, 'metrics.jsonl', 'config.json']) {
        await rm(join(this.path, name), { recursive: true, force: true }).catch(() => {})
      }
    }
    this.release()
    // rmdir leaves folders that hold anything else.
    for (const folder of this.#made.toReversed()) await rmdir(folder).catch(() => {})
  }

  /** Writes the files of a new run. config.json comes last, so only a complete run has one. */
  async create(
    config: RunConfig,
    tokenizer: Tokenizer | null,
    companions: Companions = {},
  ): Promise<void> {
    await writeFileAtomic(this.#metricsPath, '')
    if (tokenizer) await tokenizer.save(this.tokenizerPath)
    if (Object.keys(companions).length > 0) await makeFolder(this.tokenizerPath)
    await writeCompanions(this.tokenizerPath, companions)
    await writeFileAtomic(this.#configPath, sealedJson(toSnakeCase(config)))
    // Without this, a power cut could lose the folder itself.
    for (const parent of new Set([this.path, ...this.#made].map(dirname))) await syncFolder(parent)
  }

  /**
   * Reads config.json; options it lacks take their defaults.
   *
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT` (not JSON, invalid options,
   * another format version).
   */
  readConfig(): RunConfig {
    const path = this.#configPath
    if (!existsSync(path)) {
      throw new KindlingError(
        'ERR_NOT_FOUND',
        `${this.path} is not a run folder: it has no config.json; check --run`,
      )
    }
    return parseRunConfig(path, readText(path, 'ERR_INVALID_CHECKPOINT'))
  }

  async appendMetrics(line: MetricsLine): Promise<void> {
    const text = JSON.stringify(toSnakeCase(line))
    await fileOperation('write', this.#metricsPath, () =>
      appendFile(this.#metricsPath, `${text}\n`, { flush: true }),
    )
  }

  /** Syncs the metrics written so far to disk, so that no checkpoint outlives its metrics. */
  async syncMetrics(): Promise<void> {
    await fileOperation('write', this.#metricsPath, async () => {
      const file = await open(this.#metricsPath, 'a')
      await file.datasync().finally(() => file.close())
    })
  }

  /** Removes the metrics after `step`, and lines that were not written completely. */
  async truncateMetrics(step: number): Promise<void> {
    const kept = this.#metricsLines().filter((line) => stepOf(line) <= step)
    await writeFileAtomic(this.#metricsPath, kept.map((line) => `${line}\n`).join(''))
  }

  readMetrics(): MetricsLine[] {
    const lines = this.#metricsLines()
    const whole = lines.filter((line) => stepOf(line) !== Infinity)
    return whole.map((line) => toCamelCase(JSON.parse(line) as object) as MetricsLine)
  }

  /**
   * Opens the run's tokenizer; null if it has none.
   *
   * @throws KindlingError `ERR_INVALID_TOKENIZER` if it is not the one that the run started with.
   */
  async openTokenizer({ tokenizerHash }: RunConfig): Promise<Tokenizer | null> {
    const path = this.tokenizerPath
    const isThere = ['tokenizer.json', 'vocab.json'].some((name) => existsSync(join(path, name)))
    const tokenizer = isThere ? await Tokenizer.open(path) : null
    if ((tokenizer?.hash ?? null) === tokenizerHash) return tokenizer
    throw new KindlingError(
      'ERR_INVALID_TOKENIZER',
      tokenizer === null
        ? `${path} is missing; restore it from the tokenizer of the training data`
        : `${path} is not the tokenizer that the run started with; restore the original`,
    )
  }

  get #configPath(): string {
    return join(this.path, 'config.json')
  }

  get #metricsPath(): string {
    return join(this.path, 'metrics.jsonl')
  }

  #metricsLines(): string[] {
    const path = this.#metricsPath
    if (!existsSync(path)) return []
    const text = readText(path, 'ERR_INVALID_CHECKPOINT')
    return text.split('\n').slice(0, -1)
  }
}

export function runExists(path: string): KindlingError {
  return new KindlingError(
    'ERR_RUN_EXISTS',
    `${path} exists; choose another folder, or continue its run: kindling train --run ${path} --resume`,
  )
}

/** The step of a metrics line; Infinity if the line is damaged. */
function stepOf(line: string): number {
  try {
    const { step } = JSON.parse(line) as { step?: unknown }
    return typeof step === 'number' ? step : Infinity
  } catch {
    return Infinity
  }
}
