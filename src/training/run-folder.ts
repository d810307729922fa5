/**
 * The folder of a run: config.json, metrics.jsonl, `latest` (the name of the newest checkpoint),
 * checkpoints/step-<8 digits>/ and tokenizer/. The files are in snake_case, the library's objects
 * in camelCase.
 */
import { existsSync } from 'node:fs'
import { appendFile, readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { toCamelCase, toSnakeCase } from '../case'
import { KindlingError } from '../errors'
import { fileOperation, makeFolder, writeFileAtomic } from '../files'
import { Tokenizer } from '../tokenizer'
import { problemsIn, trainSchema, type TrainOptions } from './config'

/** The options of a run, with the vocabulary size of its model. */
export type RunOptions = TrainOptions & { vocabSize: number }

/** Contents of config.json: the options and what they were resolved to. */
export interface RunConfig {
  formatVersion: 1
  options: RunOptions
  /**
   * Absolute paths of the stores: the training stores with their weights, and the validation store.
   */
  data: { train: { path: string; weight: number }[]; valid: string | null }
  /** `Tokenizer.hash`, or null without a tokenizer. */
  tokenizerHash: string | null
  /** Updates from start to end. */
  totalSteps: number
}

/** One line of metrics.jsonl. */
export interface MetricsLine {
  /** Updates so far. */
  step: number
  /** Tokens trained on so far. */
  tokens: number
  /** Mean training loss since the line before, in nats per token. */
  loss: number
  /** Learning rate of the last update. */
  lr: number
  /** Gradient norm of the last update, before clipping. */
  gradNorm: number
  /** Training speed since the line before, without evaluations and samples. */
  tokensPerSecond: number
  /** Fraction of the device's peak; absent if the peak is unknown. */
  mfu?: number
  /** Seconds since the start of the run, including those before a resume. */
  elapsedS: number
  /** Validation loss, if this step was evaluated. */
  valLoss?: number
  perplexity?: number
  bitsPerByte?: number | null
  /** Generated text, if a sample was due. */
  sample?: string
}

/** State of the loop in a checkpoint, under `run` in state.json. */
export interface LoopState {
  /** Sum and number of the losses since the last metrics line. */
  lossSum: number
  lossCount: number
  /** Seconds since the start of the run. */
  elapsedS: number
}

/** Reads and writes a run's folder. All files but metrics.jsonl are written atomically. */
export class RunFolder {
  constructor(readonly path: string) {}

  get exists(): boolean {
    return existsSync(this.path)
  }

  /** Creates the folder of a new run. */
  async create(config: RunConfig, tokenizer: Tokenizer | null): Promise<void> {
    await makeFolder(this.path)
    if (tokenizer) await tokenizer.save(this.#tokenizerPath)
    const text = JSON.stringify(toSnakeCase(config), null, 2)
    await writeFileAtomic(this.#configPath, `${text}\n`)
    await writeFileAtomic(this.#metricsPath, '')
  }

  /**
   * Reads config.json; options it lacks take their defaults.
   *
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT` (not JSON, invalid options,
   * another format version).
   */
  async readConfig(): Promise<RunConfig> {
    const path = this.#configPath
    if (!existsSync(path)) {
      throw new KindlingError(
        'ERR_NOT_FOUND',
        `${this.path} is not a run folder: it has no config.json; check --run`,
      )
    }
    const damaged = (reason: string): KindlingError =>
      new KindlingError('ERR_INVALID_CHECKPOINT', `${path} is damaged: ${reason}`)
    let saved: RunConfig
    try {
      saved = toCamelCase(JSON.parse(await readFile(path, 'utf8')) as object) as RunConfig
    } catch (error) {
      throw damaged(error instanceof Error ? error.message : String(error))
    }
    if (saved?.formatVersion !== 1) {
      throw damaged(`format_version is ${String(saved?.formatVersion)}, not 1`)
    }
    const parsed = trainSchema.safeParse(toSnakeCase(saved.options))
    if (!parsed.success) throw damaged(problemsIn(parsed.error))
    const { vocabSize, ...options } = toCamelCase(parsed.data)
    if (vocabSize === undefined) throw damaged('vocab_size is missing')
    return { ...saved, options: { ...options, vocabSize } }
  }

  /** The newest checkpoint, or null before the first. */
  async latest(): Promise<{ path: string; step: number } | null> {
    const file = join(this.path, 'latest')
    if (!existsSync(file)) return null
    const name = (await readFile(file, 'utf8')).trim()
    const step = Number(/^step-(\d{8,})$/.exec(name)?.[1])
    if (!Number.isInteger(step)) {
      throw new KindlingError('ERR_INVALID_CHECKPOINT', `${file} must name a checkpoint: "${name}"`)
    }
    return { path: this.checkpointPath(step), step }
  }

  checkpointPath(step: number): string {
    return join(this.path, 'checkpoints', checkpointName(step))
  }

  /** Makes the checkpoint of `step` the latest and removes all but the `keep` newest ones. */
  async setLatest(step: number, keep: number): Promise<void> {
    await writeFileAtomic(join(this.path, 'latest'), `${checkpointName(step)}\n`)
    const folder = join(this.path, 'checkpoints')
    const steps = (await readdir(folder)).filter((name) => /^step-\d{8,}$/.test(name)).sort()
    const old = steps.slice(0, Math.max(0, steps.length - keep))
    await Promise.all(old.map((name) => rm(join(folder, name), { recursive: true, force: true })))
  }

  /** Reads the loop's state from the checkpoint of `step`. */
  async readLoopState(step: number): Promise<LoopState> {
    const text = await readFile(join(this.checkpointPath(step), 'state.json'), 'utf8')
    const { run = {} } = toCamelCase(JSON.parse(text) as { run?: Partial<LoopState> })
    return { lossSum: 0, lossCount: 0, elapsedS: 0, ...run }
  }

  async appendMetrics(line: MetricsLine): Promise<void> {
    const text = JSON.stringify(toSnakeCase(line))
    await fileOperation('write', this.#metricsPath, () =>
      appendFile(this.#metricsPath, `${text}\n`),
    )
  }

  /** Removes the metrics after `step`, and a last line that was not written to its end. */
  async truncateMetrics(step: number): Promise<void> {
    const kept = (await this.#metricsLines()).filter((line) => stepOf(line) <= step)
    await writeFileAtomic(this.#metricsPath, kept.map((line) => `${line}\n`).join(''))
  }

  async readMetrics(): Promise<MetricsLine[]> {
    const lines = await this.#metricsLines()
    return lines.map((line) => toCamelCase(JSON.parse(line) as object) as MetricsLine)
  }

  async openTokenizer(): Promise<Tokenizer | null> {
    return existsSync(this.#tokenizerPath) ? Tokenizer.open(this.#tokenizerPath) : null
  }

  get #configPath(): string {
    return join(this.path, 'config.json')
  }

  get #metricsPath(): string {
    return join(this.path, 'metrics.jsonl')
  }

  get #tokenizerPath(): string {
    return join(this.path, 'tokenizer')
  }

  async #metricsLines(): Promise<string[]> {
    if (!existsSync(this.#metricsPath)) return []
    return (await readFile(this.#metricsPath, 'utf8')).split('\n').slice(0, -1)
  }
}

function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, '0')}`
}

/** The step of a metrics line; Infinity if the line is damaged. */
function stepOf(line: string): number {
  try {
    return (JSON.parse(line) as { step: number }).step
  } catch {
    return Infinity
  }
}
