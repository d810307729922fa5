/**
 * The training loop. Each step computes the gradients of its batches, clips them and updates the
 * weights; then come metrics, evaluation, samples and checkpoints where they are due. A run resumed
 * from a checkpoint continues bit for bit.
 */
import { EventEmitter } from 'node:events'
import { z } from 'zod'
import { KindlingError, fromNative } from '../errors'
import { abortSignal, checked, isObject } from '../options'
import { CheckpointWriter } from './checkpoint-writer'
import { TrainingClock } from './clock'
import type { ResolvedOptions, TrainerOptions } from './config'
import { dueAt, workOf, type Due } from './due'
import { evaluate } from './evaluate'
import type { TrainSummary, TrainerEvents } from './events'
import { TrainingLosses } from './losses'
import { finishedBefore, noteBest, type Progress } from './loop-state'
import { explainNonFinite } from './non-finite'
import { memoryOf, openEventLog, recordSession } from './run-machine'
import type { SavedLoop } from './run-checkpoints'
import type { MetricsLine } from './metrics'
import { fromCamelCase, resolveOptions } from './resolve-options'
import { scheduleOf, tokensPerStep } from './run-plan'
import { sampleText } from './sample-text'
import { SpikeDetector } from './spikes'
import { closeSession, openSession, type TrainingSession } from './session'

export type { StepEvent, TrainSummary, TrainerEvents } from './events'

const runSchema = z.strictObject({ signal: abortSignal.optional() })

/**
 * `kindling train` as an object.
 *
 * @example
 * const trainer = new Trainer({ corpus: 'book.txt', dModel: 128, numHeads: 4, run: 'runs/book' })
 * trainer.on('metrics', (line) => console.log(line.step, line.loss))
 * const { valLoss } = await trainer.run()
 */
export class Trainer extends EventEmitter<TrainerEvents> {
  readonly #resolved: ResolvedOptions

  /**
   * @param options - the options of `kindling train`, in camelCase.
   * @throws KindlingError `ERR_USAGE`, `ERR_INVALID_CONFIG`.
   */
  constructor(options: TrainerOptions | ResolvedOptions) {
    super()
    const given = checked('Trainer', z.looseObject({}), options) as typeof options
    this.#resolved = isResolved(given) ? given : resolveOptions(fromCamelCase(given))
  }

  /**
   * Trains to the end. If `signal` is aborted, finishes the current update, saves a checkpoint and
   * returns; before the first update it throws `ERR_CANCELLED`.
   *
   * @throws KindlingError `ERR_CANCELLED`, `ERR_RUN_LOCKED` and others; see docs/errors.md.
   * Checkpoints saved so far stay intact.
   */
  async run(options: { signal?: AbortSignal } = {}): Promise<TrainSummary> {
    const { signal } = checked('run', runSchema, options)
    const session = await openSession(this.#resolved, {
      message: (text) => this.emit('message', text),
      progress: (...progress) => this.emit('progress', ...progress),
      signal,
    })
    try {
      await recordSession(session)
      this.emit('start', session.config, session.model.numParameters, session.folder.path)
      const summary = await this.#train(session, signal)
      this.emit('done', summary)
      return summary
    } catch (error) {
      // The first step takes most of the memory; the same command with less may use the name.
      const isTooLarge = error instanceof KindlingError && error.code === 'ERR_OUT_OF_MEMORY'
      if (isTooLarge && session.step === 0) await session.folder.abandon()
      throw error
    } finally {
      await closeSession(session)
      session.folder.release()
    }
  }

  async #train(session: TrainingSession, signal: AbortSignal | undefined): Promise<TrainSummary> {
    const { options, config, folder, state } = session
    const { totalSteps } = config
    const end = Math.min(options.stopAtStep ?? totalSteps, totalSteps)
    const progress = await this.#begin(session, signal)
    const { losses, writer } = progress
    try {
      const finishedLine = await this.#finishLine(progress)
      progress.savedStep = finishedLine === null ? session.step : null
      for (let step = session.step + 1; step <= end; step++) {
        if (signal?.aborted) break
        writer.check()
        const work = (): Promise<boolean> => this.#step(progress, step, step === end)
        if (!(await this.#watched(progress, step, work))) break
      }
      if (progress.savedStep !== session.step) {
        await this.#watched(progress, session.step, async () => {
          await losses.read(session.step)
          await this.#save(progress, { wait: true })
        })
      }
      await writer.finish()
    } finally {
      await writer.settle()
    }
    const { lastLine, valLoss } = progress
    return {
      steps: session.step,
      loss: lastLine?.loss ?? null,
      valLoss,
      best: state.best ?? null,
      run: folder.path,
      alreadyFinished: false,
      interrupted: session.step < end || state.unfinishedLine !== undefined,
      ...(lastLine === null && session.step >= totalSteps && finishedBefore(session)),
    }
  }

  async #begin(session: TrainingSession, signal: AbortSignal | undefined): Promise<Progress> {
    const { options, config, folder, model, optimizer, state } = session
    return {
      session,
      signal,
      learningRate: scheduleOf(options, config.totalSteps),
      losses: new TrainingLosses(model, folder.path, state, session.step),
      clock: new TrainingClock(state.elapsedS, await workOf(session)),
      writer: new CheckpointWriter({
        ...{ folder, model, optimizer, retention: options },
        onSaved: (step, path) => this.emit('checkpoint', step, path),
        say: (text) => this.emit('message', text),
      }),
      spikes:
        options.skipSpikes === undefined
          ? null
          : new SpikeDetector(options.skipSpikes, state.spikes),
      skippedUpdates: state.skippedUpdates ?? 0,
      log: openEventLog(session, (text) => this.emit('message', text)),
      batchLosses: [],
      gradNorm: NaN,
      lastLine: null,
      valLoss: null,
      savedStep: null,
    }
  }

  /**
   * Makes an update and does what is due after it. Returns false if the signal ended the run
   * meanwhile.
   */
  async #step(progress: Progress, step: number, isLast: boolean): Promise<boolean> {
    const { session, losses, clock } = progress
    const { options, model, optimizer, state } = session
    const due = dueAt(step, session)
    const saves = due.checkpoint || isLast
    const reads = losses.shouldRead(due.metrics || saves || progress.spikes !== null)
    const loss = await this.#accumulateGradients(progress, step)
    if (loss === undefined) return false
    losses.add(loss, step)
    const norm = await optimizer.clipGradNorm(options.maxNorm, { read: reads })
    progress.gradNorm = norm ?? progress.gradNorm
    const lr = progress.learningRate(step)
    if (await this.#isSpike(progress, step)) await model.zeroGradients()
    else await optimizer.step({ lr })
    session.step = step
    if (reads) await losses.read(step)
    clock.count(tokensPerStep(options))
    const { gradNorm } = progress
    this.#emitStep(session, clock, { loss: losses.latest, lr, gradNorm })
    if (due.metrics) {
      await this.#writeMetrics(progress, { loss: losses.takeMean(), lr, gradNorm }, due)
    }
    if (state.unfinishedLine !== undefined) return false
    if (saves) await this.#save(progress, { wait: isLast })
    return true
  }

  /** Returns true if the update of a step is to be skipped, and reports it. */
  async #isSpike(progress: Progress, step: number): Promise<boolean> {
    const { losses, spikes, gradNorm } = progress
    if (spikes === null) return false
    await losses.read(step)
    const spike = spikes.observe(losses.latest, gradNorm)
    if (spike === null) return false
    progress.skippedUpdates += 1
    this.emit('message', `step ${step}: skipped the update: ${spike}`)
    return true
  }

  /**
   * Runs a part of a step. If it fails with `ERR_NON_FINITE`, writes the report to the run's
   * folder.
   */
  async #watched<T>(progress: Progress, step: number, work: () => Promise<T>): Promise<T> {
    const { session, losses } = progress
    const firstStep = Math.min(losses.firstUnread, step)
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof KindlingError) || error.code !== 'ERR_NON_FINITE') throw error
      const { batchLosses, gradNorm } = progress
      const sighting = { step, firstStep, losses: batchLosses, gradNorm }
      throw await explainNonFinite(session, error, sighting)
    }
  }

  /**
   * Adds up the gradients of a step's batches; returns the mean loss, null if the losses stay on
   * the device, or undefined if the signal ended the step before its last batch. In that case, the
   * state is that before the step.
   */
  async #accumulateGradients(
    { session, losses, signal, batchLosses }: Progress,
    step: number,
  ): Promise<number | null | undefined> {
    const { options, batches, model } = session
    const { accumulate } = options
    // Losses that accumulate on the device cannot be taken back, so such a step is always
    // completed.
    const readLoss = losses.readsEveryBatch
    batchLosses.length = 0
    for (let microBatch = 0; microBatch < accumulate; microBatch++) {
      if (microBatch > 0 && readLoss && signal?.aborted) {
        await model.zeroGradients()
        const done = `${microBatch} of its ${accumulate} batches`
        this.emit('message', `leaving step ${step} after ${done}; step ${step - 1} is saved`)
        return undefined
      }
      const batch = await batches.next({ step, microBatch })
      const { loss } = await model.forwardBackward(batch, { scale: 1 / accumulate, readLoss })
      if (loss !== null) batchLosses.push(loss)
    }
    if (!readLoss) return null
    return batchLosses.reduce((mean, loss) => mean + loss / accumulate, 0)
  }

  #emitStep(
    { options, config, step }: TrainingSession,
    clock: TrainingClock,
    update: { loss: number; lr: number; gradNorm: number },
  ): void {
    const speed = clock.speed()
    const msPerStep = (1000 * tokensPerStep(options)) / speed.tokensPerSecond
    this.emit('step', { step, totalSteps: config.totalSteps, ...update, ...speed, msPerStep })
  }

  /**
   * Writes a metrics line, with an evaluation and a sample if they are due. If the signal
   * interrupts these, the line is kept in the checkpoint and completed on resume.
   */
  async #writeMetrics(
    progress: Progress,
    update: { loss: number; lr: number; gradNorm: number },
    due: Due,
  ): Promise<void> {
    const { session, clock } = progress
    const tokens = session.step * tokensPerStep(session.options)
    const { skippedUpdates } = progress
    const line = {
      ...{ step: session.step, tokens, ...update },
      ...(skippedUpdates > 0 && { skippedUpdates }),
      ...clock.line(),
    }
    progress.skippedUpdates = 0
    await this.#completeLine(progress, line, due)
  }

  /**
   * Completes the line of a run that was interrupted during an evaluation or a sample. Returns null
   * if there is none, or if it is interrupted again.
   */
  async #finishLine(progress: Progress): Promise<MetricsLine | null> {
    const { session } = progress
    const { state, folder } = session
    const line = state.unfinishedLine
    if (line === undefined) return null
    delete state.unfinishedLine
    const due = dueAt(session.step, session)
    const whole = await this.#completeLine(progress, line, due)
    // The checkpoint was saved before this evaluation, so `best` is set only now.
    if (due.checkpoint && noteBest(state, whole)) await folder.checkpoints.setBest(session.step)
    return whole
  }

  async #completeLine(
    progress: Progress,
    line: MetricsLine,
    due: Due,
  ): Promise<MetricsLine | null> {
    const { session, clock, signal } = progress
    const whole = { ...line, ...(await memoryOf(session)) }
    try {
      if (due.evaluation) Object.assign(whole, await this.#evaluate(session, signal))
      if (due.sample) whole.sample = await this.#sample(session, signal)
    } catch (error) {
      if (!signal?.aborted || fromNative(error).code !== 'ERR_CANCELLED') throw error
      session.state.unfinishedLine = line
      return null
    }
    await session.folder.appendMetrics(whole)
    progress.log?.write(whole)
    this.emit('metrics', whole)
    clock.restart()
    progress.lastLine = whole
    progress.valLoss = whole.valLoss ?? progress.valLoss
    return whole
  }

  async #evaluate(
    { options, model, data, step }: TrainingSession,
    signal: AbortSignal | undefined,
  ): Promise<Partial<MetricsLine>> {
    const { loss, perplexity, bitsPerByte } = await evaluate(model, data.valid!, {
      seqLength: options.seqLength,
      batchSize: options.batchSize,
      maxTokens: options.evalTokens,
      onProgress: (done, total) => this.emit('evaluating', done, total),
      signal,
    })
    this.emit('evaluation', step, loss)
    return { valLoss: loss, perplexity, bitsPerByte }
  }

  async #sample(session: TrainingSession, signal: AbortSignal | undefined): Promise<string> {
    const text = await sampleText(session, signal)
    this.emit('sample', session.step, text)
    return text
  }

  /**
   * Saves a checkpoint; unless `wait`, it is written while training goes on.
   *
   * @throws KindlingError `ERR_NON_FINITE` if the update made a weight overflow.
   */
  async #save(progress: Progress, { wait }: { wait: boolean }): Promise<void> {
    const { session, losses, clock, writer, lastLine, spikes, skippedUpdates } = progress
    const { folder, model, step, state } = session
    if ((await model.nonFiniteWeight()) !== null) {
      throw new KindlingError(
        'ERR_NON_FINITE',
        `the weights are not finite after step ${step} and were not saved; lower the learning ` +
          `rate; the checkpoints in ${folder.path} are intact`,
      )
    }
    if (lastLine?.step === step) noteBest(state, lastLine)
    const saved: SavedLoop = {
      ...{ ...losses.state, elapsedS: clock.elapsed() },
      ...(state.best && { best: state.best }),
      ...(state.unfinishedLine && { unfinishedLine: state.unfinishedLine }),
      ...(spikes && { spikes: spikes.state, skippedUpdates }),
    }
    await (wait ? writer.saveAndWait(step, saved) : writer.save(step, saved))
    progress.savedStep = step
  }
}

function isResolved(options: TrainerOptions | ResolvedOptions): options is ResolvedOptions {
  return 'given' in options && options.given instanceof Set && isObject(options.options)
}
