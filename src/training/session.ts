/** Opens a run: a new one from its options, or an existing one to resume from a checkpoint. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { Checkpoint } from '../checkpoint'
import { unusedGpu } from '../device'
import { KindlingError, cancelled } from '../errors'
import type { Optimizer } from '../optimizer'
import { TokenStore } from '../token-store'
import { END_OF_TEXT } from '../tokenizer'
import type { Transformer } from '../transformer'
import { withAutoSizes, withAutoVocabulary } from './auto-options'
import type { BatchLoader } from './batch-loader'
import type { ResolvedOptions, TrainOptions } from './config'
import type { CorpusProgress, Scratch } from './corpus-store'
import { openData, type DataSource } from './data-source'
import { openModelSource, type ModelSource } from './model-source'
import { locateCheckpoint, timestamp, type SavedLoop } from './run-checkpoints'
import type { RunConfig, RunOptions } from './run-config'
import { RunFolder } from './run-folder'
import { batchesOf, buildModel, buildOptimizer, planRun, resumedOptions } from './run-plan'
import { saveWeights } from './save-model'
import { startingFrom } from './start-from'
import { checkIdentities } from './store-identity'
import { verifyData } from './verify-data'

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
  state: SavedLoop
  /** Updates done so far. */
  step: number
}

/** Callbacks and cancellation while a run is opened. */
export interface SessionReport {
  /** A sentence for people. */
  message: (text: string) => void
  /** A corpus is being read. */
  progress: CorpusProgress
  /** A corpus that is not encoded yet is encoded here. Default: in the data folder. */
  scratch?: Scratch | undefined
  /** Cancels the opening. */
  signal?: AbortSignal | undefined
}

/**
 * Opens a run and locks its folder: a new one, or with `resume` or `checkpoint` an existing one.
 *
 * @throws KindlingError `ERR_CANCELLED`, `ERR_RUN_LOCKED`; see docs/errors.md. A new run that cannot
 * start leaves no folder.
 */
export async function openSession(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<TrainingSession> {
  const { resume, checkpoint } = resolved.options
  if (report.signal?.aborted) throw cancelled(report.signal)
  return resume || checkpoint !== undefined
    ? resumeRun(resolved, report)
    : startRun(resolved, report)
}

/** A run that has not started: what it starts from, its data, and its config.json. */
export interface PlannedStart {
  base: ModelSource | null
  data: DataSource
  config: RunConfig
}

/**
 * Opens the data of a new run and plans it, without creating its folder.
 *
 * @throws KindlingError as `openSession`.
 */
export async function planStart(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<PlannedStart> {
  const { isAutomatic, options } = resolved
  const { signal, message } = report
  const base = options.from === undefined ? null : await openBase(options.from, report)
  const merged = base
    ? startingFrom(resolved, base)
    : isAutomatic
      ? await withAutoVocabulary(resolved)
      : resolved
  const data = await openData(merged, { ...report, tokenizer: base?.tokenizer })
  await verifyData(data, report)
  const planned = isAutomatic ? withAutoSizes(merged, data, message) : merged
  return { base, data, config: await planRun(planned, data, signal) }
}

/** Opens the model that a run starts from. */
function openBase(
  source: string,
  { signal, message, progress }: SessionReport,
): Promise<ModelSource> {
  return openModelSource(
    source,
    {},
    {
      onMessage: message,
      ...(signal && { signal }),
      onProgress: (done, total) => progress(`downloading ${source}`, done, total),
    },
  )
}

async function startRun(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<TrainingSession> {
  const { signal, message } = report
  const folder = await RunFolder.claim(resolved.options.run, `runs/${timestamp()}`, message)
  let session: TrainingSession | undefined
  try {
    const { base, data, config } = await planStart(resolved, report)
    session = assemble(config.options, config, folder, data)
    reportArithmetic(session, report)
    reportSamples(session, report)
    // Allocates the model's memory on its device, so that a run that cannot start leaves no folder.
    await session.model.zeroGradients()
    if (base) {
      await base.read(session.model, signal && { signal })
      await saveWeights(folder, session.model, 0)
    }
    if (signal?.aborted) throw cancelled(signal)
    await folder.create(config, data.tokenizer, base?.companions)
    return session
  } catch (error) {
    if (session) await closeSession(session)
    await folder.abandon()
    throw error
  }
}

async function resumeRun(
  resolved: ResolvedOptions,
  report: SessionReport,
): Promise<TrainingSession> {
  const { run, step } = runToResume(resolved.options)
  const folder = new RunFolder(run)
  const config = folder.readConfig()
  if (config.data.train.length === 0) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `${run} is an imported model, which has no training to resume; start a new run with --from ${run}`,
    )
  }
  folder.lock(report.message)
  let session: TrainingSession | undefined
  try {
    const options = resumedOptions(config.options, resolved)
    const data = await reopenData(config, folder)
    await verifyData(data, report)
    session = assemble(options, config, folder, data)
    reportArithmetic(session, report)
    await loadCheckpoint(session, step, report)
    if (report.signal?.aborted) throw cancelled(report.signal)
    return session
  } catch (error) {
    if (session) await closeSession(session)
    folder.release()
    throw error
  }
}

/** Frees a session's memory and stops its threads; the run's folder stays locked. */
export async function closeSession({ batches, model, optimizer }: TrainingSession): Promise<void> {
  batches.close()
  await model.close()
  await optimizer.close()
}

/** Returns the run's folder, and the step to continue from if a checkpoint was named. */
export function runToResume({ run, checkpoint }: TrainOptions): {
  run: string
  step: number | null
} {
  if (checkpoint === undefined) {
    if (run === undefined) throw new KindlingError('ERR_USAGE', '--resume needs --run RUN')
    return { run, step: null }
  }
  const located = locateCheckpoint(checkpoint)
  if (run !== undefined && resolve(run) !== located.run) {
    throw new KindlingError('ERR_USAGE', `${checkpoint} is not a checkpoint of the run ${run}`)
  }
  return { ...located, run: run ?? located.run }
}

/**
 * Loads the checkpoint of `step`, or else the newest one, and cuts the metrics to it. Without a
 * checkpoint, the run starts over.
 */
async function loadCheckpoint(
  session: TrainingSession,
  step: number | null,
  { message }: SessionReport,
): Promise<void> {
  const { folder, config } = session
  const { checkpoints } = folder
  await checkpoints.removeTrash(message)
  const load = async (found: { path: string; step: number }): Promise<SavedLoop> => {
    const saved = await checkpoints.readLoop(found.step)
    // Before the first update the optimizer has no state; a run that starts from another model
    // saves its weights alone.
    await Checkpoint.load(found.path, session.model, found.step > 0 ? session.optimizer : undefined)
    return saved
  }
  if (step !== null) {
    session.state = await load({ path: checkpoints.path(step), step })
    const aside = await checkpoints.branchFrom(step)
    if (aside !== null) message(`moved the later checkpoints to ${aside}`)
    session.step = step
  } else {
    const found = await checkpoints.loadNewest(load, message)
    if (found) {
      session.state = found.loaded
      session.step = found.step
      // A process that was killed right after a save may not have got this far.
      const best = found.loaded.best?.step ?? null
      await checkpoints.setLatest(found.step, { ...session.options, best }, message)
    } else {
      message(`${folder.path} has no checkpoint; starting over`)
    }
  }
  const { best } = session.state
  if (best && !existsSync(checkpoints.path(best.step))) delete session.state.best
  await checkpoints.setBest(session.state.best?.step ?? null)
  if (session.step > 0) message(progressText(folder.path, session.step, config.totalSteps))
  // An unfinished line is completed and written later.
  const cut = session.state.unfinishedLine === undefined ? session.step : session.step - 1
  await folder.truncateMetrics(cut)
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

/**
 * Opens the stores that config.json names, and checks that they are still those that the run
 * started with.
 */
async function reopenData(config: RunConfig, folder: RunFolder): Promise<DataSource> {
  const { train, valid } = config.data
  const data = {
    train: await Promise.all(
      train.map(async ({ path, weight }) => ({ store: await TokenStore.open(path), weight })),
    ),
    valid: valid === null ? null : await TokenStore.open(valid),
    tokenizer: await folder.openTokenizer(config),
  }
  checkIdentities(config, data)
  return data
}

/** Reports an unused GPU, and a CPU that computes in f32: `auto` and `bf16` are best-effort. */
function reportArithmetic({ options, model }: TrainingSession, { message }: SessionReport): void {
  const unused = unusedGpu(options.device)
  if (unused !== null) message(unused)
  if (options.dtype === 'bf16' && model.arithmetic === 'f32') {
    message(
      'this CPU has no bf16 instructions (AVX512-BF16 or AMX): matrix multiplications run in f32',
    )
  }
}

/** Reports where samples start if the training data has no `<|endoftext|>`. */
function reportSamples(
  { options, config, data }: TrainingSession,
  { message }: SessionReport,
): void {
  const { sampleInterval, samplePrompt } = options
  if (config.endOfText !== false || data.tokenizer === null) return
  if (sampleInterval === 0 || samplePrompt !== undefined) return
  message(
    `the training text has no ${END_OF_TEXT}: samples start from a line break, or from --sample-prompt`,
  )
}
