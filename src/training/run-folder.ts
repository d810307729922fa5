/**
 * The folder of a run: config.json, metrics.jsonl, `latest`, checkpoints/step-<8 digits>/, tokenizer/.
 * Files are written beside their place and renamed, so that each is whole or as it was.
 */
import { existsSync } from 'node:fs'
import { appendFile, mkdir, open, readFile, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Checkpoint } from '../checkpoint'
import type { TrainOptions } from './config'
import { KindlingError } from '../errors'
import { Tokenizer } from '../tokenizer'
import { Transformer, type TransformerOptions } from '../transformer'

/** What config.json holds. */
export interface RunConfig {
  format_version: 1
  /** Every option, resolved. */
  options: TrainOptions
  /** Sizes of the model, as its constructor takes them. */
  model: TransformerOptions
  /** Stores of the run, absolute. Of a mixture, `train` is the first. */
  data: {
    train: string
    valid: string | null
    mixture?: { path: string; weight: number }[]
  }
  tokenizer_hash: string | null
  /** Updates in all. */
  total_steps: number
}

/** One line of metrics.jsonl. */
export interface MetricsLine {
  step: number
  tokens: number
  loss: number
  lr: number
  grad_norm: number
  tokens_per_second: number
  /** Share of the device's peak; absent where that is unknown. */
  mfu?: number
  elapsed_s: number
  val_loss?: number
  perplexity?: number
  bits_per_byte?: number | null
  sample?: string
}

/** What a checkpoint keeps for the loop: the losses since the last line, and the clock. */
export interface LoopState {
  loss_sum: number
  loss_count: number
  elapsed_s: number
}

/** A run's folder. */
export class RunFolder {
  constructor(readonly path: string) {}

  private get metricsPath(): string {
    return join(this.path, 'metrics.jsonl')
  }

  get tokenizerPath(): string {
    return join(this.path, 'tokenizer')
  }

  get exists(): boolean {
    return existsSync(this.path)
  }

  /** Makes the folder of a new run. */
  async create(config: RunConfig, tokenizer: Tokenizer | null): Promise<void> {
    await fileOperation(this.path, () => makeFolder(this.path))
    if (tokenizer) await tokenizer.save(this.tokenizerPath)
    await writeWhole(join(this.path, 'config.json'), `${JSON.stringify(config, null, 2)}\n`)
    await writeWhole(this.metricsPath, '')
  }

  async readConfig(): Promise<RunConfig> {
    const path = join(this.path, 'config.json')
    if (!existsSync(path)) {
      throw new KindlingError(
        'ERR_NOT_FOUND',
        `${this.path} is no run: it has no config.json; check --run`,
      )
    }
    try {
      return JSON.parse(await readFile(path, 'utf8')) as RunConfig
    } catch (error) {
      throw new KindlingError('ERR_INVALID_CHECKPOINT', `${path} is damaged`, { cause: error })
    }
  }

  /** The newest checkpoint's folder, or null. */
  async latest(): Promise<{ path: string; step: number } | null> {
    const file = join(this.path, 'latest')
    if (!existsSync(file)) return null
    const name = (await readFile(file, 'utf8')).trim()
    const step = Number(/^step-(\d{8,})$/.exec(name)?.[1])
    if (!Number.isInteger(step)) {
      throw new KindlingError('ERR_INVALID_CHECKPOINT', `${file} names no checkpoint: "${name}"`)
    }
    return { path: this.checkpointPath(step), step }
  }

  checkpointPath(step: number): string {
    return join(this.path, 'checkpoints', `step-${String(step).padStart(8, '0')}`)
  }

  /** Names the checkpoint of `step` the newest and removes all but the `keep` newest. */
  async setLatest(step: number, keep: number): Promise<void> {
    await writeWhole(join(this.path, 'latest'), `step-${String(step).padStart(8, '0')}\n`)
    const folder = join(this.path, 'checkpoints')
    const steps = (await readdir(folder)).filter((name) => /^step-\d{8,}$/.test(name)).sort()
    const old = steps.slice(0, Math.max(0, steps.length - keep))
    await Promise.all(old.map((name) => rm(join(folder, name), { recursive: true, force: true })))
  }

  /** What the checkpoint of `step` kept for the loop. */
  async readLoopState(step: number): Promise<LoopState> {
    const state: unknown = JSON.parse(
      await readFile(join(this.checkpointPath(step), 'state.json'), 'utf8'),
    )
    const run = (state as { run?: Partial<LoopState> }).run ?? {}
    return {
      loss_sum: run.loss_sum ?? 0,
      loss_count: run.loss_count ?? 0,
      elapsed_s: run.elapsed_s ?? 0,
    }
  }

  async appendMetrics(line: MetricsLine): Promise<void> {
    await fileOperation(this.metricsPath, () =>
      appendFile(this.metricsPath, `${JSON.stringify(line)}\n`),
    )
  }

  /** Drops what was written after `step`, and a line cut off in the middle. */
  async cutMetrics(step: number): Promise<void> {
    const text = existsSync(this.metricsPath) ? await readFile(this.metricsPath, 'utf8') : ''
    const kept = text
      .split('\n')
      .slice(0, -1)
      .filter((line) => stepOf(line) <= step)
    await writeWhole(this.metricsPath, kept.map((line) => `${line}\n`).join(''))
  }

  async readMetrics(): Promise<MetricsLine[]> {
    const text = existsSync(this.metricsPath) ? await readFile(this.metricsPath, 'utf8') : ''
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as MetricsLine)
  }

  async openTokenizer(): Promise<Tokenizer | null> {
    return existsSync(this.tokenizerPath) ? Tokenizer.open(this.tokenizerPath) : null
  }
}

/** A trained model with what belongs to it. */
export interface LoadedRun {
  model: Transformer
  tokenizer: Tokenizer | null
  config: RunConfig
  step: number
}

/** Where a trained model is: a run, or one checkpoint of it. */
export interface RunLocation {
  run?: string | undefined
  checkpoint?: string | undefined
  device?: string | undefined
  threads?: number | undefined
  /** Arithmetic of the matrix products. Default: the run's. */
  dtype?: 'f32' | 'bf16' | undefined
}

/** Loads the newest checkpoint of a run, or the one named. */
export async function loadRun(location: RunLocation): Promise<LoadedRun> {
  if ((location.run === undefined) === (location.checkpoint === undefined)) {
    throw new KindlingError('ERR_USAGE', 'give --run RUN or --checkpoint RUN/checkpoints/step-...')
  }
  const folder = new RunFolder(location.run ?? resolve(location.checkpoint!, '..', '..'))
  const config = await folder.readConfig()
  const latest = location.checkpoint ?? (await folder.latest())?.path
  if (latest === undefined) {
    throw new KindlingError('ERR_NOT_FOUND', `${folder.path} has no checkpoint yet; train first`)
  }
  const model = new Transformer({
    ...config.model,
    device: location.device ?? 'cpu',
    dtype: location.dtype ?? config.options.dtype,
    // Runs of before have no such option.
    tf32: config.options.tf32 ?? false,
    ...(location.threads === undefined ? {} : { threads: location.threads }),
  })
  const step = await Checkpoint.load(latest, model)
  return { model, tokenizer: await folder.openTokenizer(), config, step }
}

function stepOf(line: string): number {
  try {
    return (JSON.parse(line) as { step: number }).step
  } catch {
    return Infinity
  }
}

/** Makes a folder and what lacks above it. */
async function makeFolder(path: string): Promise<void> {
  const parent = dirname(path)
  // One level at a time: with `recursive`, a refusal on a read-only file system comes back as ENOENT.
  if (!existsSync(parent)) await makeFolder(parent)
  await mkdir(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
}

/** Writes a file under a temporary name, syncs and renames it. */
export async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`
  await fileOperation(path, async () => {
    try {
      const file = await open(temporary, 'w')
      try {
        await file.writeFile(text)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  })
}

/** Runs a file operation; the system's refusal becomes a coded error. */
export async function fileOperation<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw systemError(path, error)
  }
}

function systemError(path: string, error: unknown): KindlingError {
  const system = (error as NodeJS.ErrnoException).code
  const options = { cause: error }
  if (system === 'ENOSPC' || system === 'EDQUOT') {
    return new KindlingError(
      'ERR_DISK_FULL',
      `cannot write ${path}: the disk is full; free some space and run the command again`,
      options,
    )
  }
  if (system === 'EACCES' || system === 'EROFS' || system === 'EPERM') {
    return new KindlingError(
      'ERR_NOT_WRITABLE',
      `cannot write ${path}: permission denied or read-only; choose another folder`,
      options,
    )
  }
  const reason = error instanceof Error ? error.message : String(error)
  return new KindlingError('ERR_IO', `${path}: ${reason}`, options)
}
