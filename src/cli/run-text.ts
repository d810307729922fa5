/**
 * What a terminal shows of a run: the summary at its start, the lines while it trains, and the
 * summary at its end.
 */
import { quoted } from '../runs/command'
import { availableThreads, instructionSet } from '../system'
import { estimatedSeconds, peakBytes } from '../training/estimates'
import { tokensPerStep } from '../training/run-plan'
import type { MetricsLine } from '../training/metrics'
import { trainingTokensOf, type RunConfig } from '../training/run-config'
import type { StepEvent, TrainSummary } from '../training/trainer'
import { count, duration, memory, percent } from '../format'
import { bar, fit, sparkline } from './terminal'

/**
 * The best checkpoint is suggested if its validation loss is below this fraction of the last one.
 */
const BEST_IS_BETTER = 0.99
/** Width of the labels of the summary at the start. */
export const START_INDENT = 9

/** Returns lines that say what is about to be trained, on what data, and what it takes. */
export function startText(config: RunConfig, numParameters: number): string[] {
  const { options, totalSteps } = config
  const { dModel, numHeads, numLayers, vocabSize, seqLength } = options
  const perStep = tokensPerStep(options)
  const tokens = trainingTokensOf(config)
  const passes = tokens === undefined ? null : (totalSteps * perStep) / tokens
  const row = (label: string, ...parts: string[]) =>
    `${label.padEnd(START_INDENT)}${parts.join(', ')}`
  return [
    row(
      'model',
      `${count(numParameters)} parameters`,
      `${numLayers} layers`,
      `width ${dModel}`,
      `${numHeads} heads`,
      `vocabulary ${vocabSize}`,
    ),
    ...(tokens === undefined
      ? []
      : [row('data', `${count(tokens)} tokens`, `${ratio(tokens / numParameters)} a parameter`)]),
    row(
      'steps',
      `${totalSteps} of ${count(perStep)} tokens`,
      ...(passes === null ? [] : [`${ratio(passes)} passes over the data`]),
    ),
    row('memory', `about ${memory(peakBytes(options))}`),
    row(
      'machine',
      options.device === 'auto' || options.device === 'cpu'
        ? `${options.threads ?? availableThreads()} threads of ${instructionSet()}`
        : options.device,
      options.dtype,
      `windows of ${seqLength}`,
    ),
    row('time', `about ${duration(estimatedSeconds(config))} if nothing else runs`),
  ]
}

function ratio(value: number): string {
  return value >= 10 ? String(Math.round(value)) : value.toPrecision(2)
}

/** Returns the live line: step, loss, time left, then what else fits. */
export function liveLine(event: StepEvent, losses: readonly number[], columns: number): string {
  const { step, totalSteps, loss, lr, tokensPerSecond, mfu, msPerStep } = event
  const left = `${duration(((totalSteps - step) * msPerStep) / 1000)} left`
  const parts = [
    `${step}/${totalSteps}`,
    `loss ${loss.toFixed(3)}`,
    left,
    `${count(tokensPerSecond)} tokens/s`,
    `lr ${lr.toExponential(1)}`,
    ...(mfu === null ? [] : [`mfu ${percent(mfu)}`]),
  ]
  const drawn = [bar(step, totalSteps), ...parts]
  const line = fit(columns >= 70 ? drawn : parts, columns - 1)
  const room = columns - 1 - line.length - 2
  return room >= 8 && losses.length > 1 ? `${line}  ${sparkline(losses, Math.min(20, room))}` : line
}

/** Returns the text of a metrics line, as much of it as fits. */
export function metricsText(line: MetricsLine, columns: number | null): string {
  const parts = [
    `step ${line.step}`,
    `loss ${line.loss.toFixed(4)}`,
    ...(line.valLoss === undefined ? [] : [`val_loss ${line.valLoss.toFixed(4)}`]),
    `lr ${line.lr.toExponential(2)}`,
    `grad_norm ${line.gradNorm.toFixed(2)}`,
    ...(line.skippedUpdates === undefined ? [] : [`skipped ${line.skippedUpdates}`]),
    `${count(line.tokensPerSecond)} tokens/s`,
    ...(line.mfu === undefined ? [] : [`mfu ${percent(line.mfu)}`]),
    duration(line.elapsedS),
  ]
  return fit(parts, columns ?? Infinity)
}

/** Returns the plain line that replaces the live line if there is no terminal. */
export function plainLine({
  step,
  totalSteps,
  loss,
  tokensPerSecond,
  msPerStep,
}: StepEvent): string {
  const left = duration(((totalSteps - step) * msPerStep) / 1000)
  return `step ${step} of ${totalSteps}  loss ${loss.toFixed(3)}  ${count(tokensPerSecond)} tokens/s  ${left} left`
}

/** Returns the last line of a run: losses and the folder. */
export function summaryText(summary: TrainSummary): string {
  const loss = summary.loss === null ? '' : `  loss ${summary.loss.toFixed(4)}`
  const valLoss = summary.valLoss === null ? '' : `  val_loss ${summary.valLoss.toFixed(4)}`
  const verb = summary.interrupted ? 'stopped' : 'done'
  return `${verb} at step ${summary.steps}${loss}${valLoss}  ${summary.run}`
}

/** Returns the command that the user is likely to want next. */
export function nextCommand(summary: TrainSummary): string {
  const { interrupted, run, best, valLoss } = summary
  if (interrupted) return `go on: kindling train --run ${quoted(run)} --resume`
  if (best === null || valLoss === null || best.valLoss > BEST_IS_BETTER * valLoss) {
    return `next: kindling generate ${quoted(run)}`
  }
  const was = `val_loss was ${best.valLoss.toFixed(4)} at step ${best.step}`
  return `next: kindling generate ${quoted(`${run}/best`)} (${was}, before the text was learned by heart)`
}
