/** Opening a run: a new one from its options, or one that is resumed from its newest checkpoint. */
import { Checkpoint } from '../checkpoint'
import { unusedGpu } from '../device'
import { KindlingError } from '../errors'
import type { Optimizer } from '../optimizer'
import { TokenStore } from '../token-store'
import type { Transformer } from '../transformer'
import type { BatchLoader } from './batch-loader'
import type { ResolvedOptions } from './config'
import { openData, type CorpusProgress, type DataSource } from './data-source'
import { RunFolder, type LoopState, type RunConfig, type RunOptions } from './run-folder'
import { batchesOf, buildModel, buildOptimizer, planRun, resumedOptions } from './run-plan'

/** Everything the training loop works with. */
export interface TrainingSession {
  options: RunOptions
  config: RunConfig
  folder: RunFolder
  data: DataSource
  batches: BatchLoader
  model: Transformer
  optimizer: Optimizer
  /** Losses and time so far. */
  state: LoopState
  /** Updates done so far. */
  step: number
}

/** Callbacks for the progress of opening a run. */
export interface SessionReport {
  /** A sentence for people. */
  message: (text: string) => void
  /** A corpus is being read. */
  progress: CorpusProgress
}

/**
 * Opens a run: a new one, or with `resume` the one in `run`.
 *
 * @throws KindlingError see docs/errors.md; a new run that cannot start leaves no folder.
 */
export async function openSession(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<TrainingSession> {
  return resolved.options.resume ? resumeRun(resolved, report) : startRun(resolved, report)
}

async function startRun(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<TrainingSession> {
  const folder = new RunFolder(resolved.options.run ?? defaultRun())
  if (folder.exists) {
    throw new KindlingError(
      'ERR_RUN_EXISTS',
      `${folder.path} exists; add --resume to continue it, or choose another --run`,
    )
  }
  const data = await openData(resolved, report.progress)
  const config = await planRun(resolved, data)
  const session = assemble(config.options, config, folder, data)
  reportArithmetic(session, report)
  // Allocates the model's memory on its device, so that a run that cannot start leaves no folder.
  await session.model.zeroGradients()
  await folder.create(config, data.tokenizer)
  return session
}

async function resumeRun(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<TrainingSession> {
  const { run } = resolved.options
  if (run === undefined) throw new KindlingError('ERR_USAGE', '--resume needs --run RUN')
  const folder = new RunFolder(run)
  const config = await folder.readConfig()
  const options = resumedOptions(config.options, resolved)
  const session = assemble(options, config, folder, await reopenData(config, folder))
  reportArithmetic(session, report)
  const latest = await folder.latest()
  if (latest) {
    session.step = await Checkpoint.load(latest.path, session.model, session.optimizer)
    session.state = await folder.readLoopState(session.step)
    report.message(progressText(folder.path, session.step, config.totalSteps))
  } else {
    report.message(`${folder.path} has no checkpoint; starting over`)
  }
  await folder.truncateMetrics(session.step)
  return session
}

function progressText(run: string, step: number, total: number): string {
  return step >= total
    ? `${run} is finished: ${step} of ${total} steps done`
    : `resuming ${run} at step ${step} of ${total}`
}

/** Puts together a session at step 0. */
function assemble(
  options: RunOptions,
  config: RunConfig,
  folder: RunFolder,
  data: DataSource,
): TrainingSession {
  const batches = batchesOf(options, data)
  const model = buildModel(options)
  const optimizer = buildOptimizer(model, options)
  const state = { lossSum: 0, lossCount: 0, elapsedS: 0 }
  return { options, config, folder, data, batches, model, optimizer, state, step: 0 }
}

/** Opens the stores that config.json names. */
async function reopenData({ data }: RunConfig, folder: RunFolder): Promise<DataSource> {
  return {
    train: await Promise.all(
      data.train.map(async ({ path, weight }) => ({ store: await TokenStore.open(path), weight })),
    ),
    valid: data.valid === null ? null : await TokenStore.open(data.valid),
    tokenizer: await folder.openTokenizer(),
  }
}

/** `auto` and `bf16` are best-effort: says so if a GPU goes unused or a CPU computes in f32. */
function reportArithmetic({ options, model }: TrainingSession, { message }: SessionReport): void {
  const unused = unusedGpu(options.device)
  if (unused !== null) message(unused)
  if (options.dtype === 'bf16' && model.arithmetic === 'f32') {
    message(
      'this CPU has no bf16 instructions (AVX512-BF16 or AMX): matrix multiplications run in f32',
    )
  }
}

function defaultRun(): string {
  const stamp = new Date().toISOString().slice(0, 19).replace('T', '-').replaceAll(':', '')
  return `runs/${stamp}`
}
