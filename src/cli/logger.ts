/**
 * Output of a training run: a live line on a terminal, lines of metrics, JSON lines on request.
 */
import { bar, count, duration, percent } from './format'
import type { Output } from './output'
import { ByteProgress } from './progress'
import type { MetricsLine } from '../training/metrics'
import { tokensPerStep } from '../training/run-plan'
import type { StepEvent, Trainer, TrainSummary } from '../training/trainer'

/** Milliseconds between two updates of the live line. */
const REDRAW_MS = 100

/** Prints every event of a trainer. */
export function logRun(trainer: Trainer, output: Output): void {
  let lastRedraw = 0
  let reading: { what: string; progress: ByteProgress } | null = null
  trainer.on('message', (text) => output.note(text))
  trainer.on('progress', (what, done, total) => {
    if (reading?.what !== what) reading = { what, progress: new ByteProgress(what, output) }
    reading.progress.report(done, total)
    if (done === total) output.clear()
  })
  trainer.on('start', (config, numParameters) => {
    const { options, totalSteps } = config
    output.note(
      `${count(numParameters)} parameters, vocabulary ${options.vocabSize}, ` +
        `${totalSteps} steps of ${count(tokensPerStep(options))} tokens`,
    )
  })
  trainer.on('step', (event) => {
    const now = performance.now()
    if (now - lastRedraw < REDRAW_MS) return
    lastRedraw = now
    output.progress(liveLine(event))
  })
  trainer.on('metrics', (line) => {
    output.clear()
    output.line(line)
    output.text(metricsText(line))
    if (line.sample !== undefined) output.text(`  sample: ${JSON.stringify(line.sample)}`)
  })
  trainer.on('done', () => output.clear())
}

/** Returns the live line: step, loss, learning rate, tokens/s, time left. */
export function liveLine(event: StepEvent): string {
  const { step, totalSteps, loss, lr, tokensPerSecond, mfu, msPerStep } = event
  const parts = [
    `${bar(step, totalSteps)} ${step}/${totalSteps}`,
    `loss ${loss.toFixed(3)}`,
    `lr ${lr.toExponential(1)}`,
    `${count(tokensPerSecond)} tokens/s`,
    ...(mfu === null ? [] : [`mfu ${percent(mfu)}`]),
    `${duration(((totalSteps - step) * msPerStep) / 1000)} left`,
  ]
  return parts.join('  ')
}

function metricsText(line: MetricsLine): string {
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
  return parts.join('  ')
}

/** Returns the last line of a run. */
export function summaryText(summary: TrainSummary): string {
  const loss = summary.loss === null ? '' : `  loss ${summary.loss.toFixed(4)}`
  const valLoss = summary.valLoss === null ? '' : `  val_loss ${summary.valLoss.toFixed(4)}`
  const verb = summary.interrupted ? 'stopped' : 'done'
  return `${verb} at step ${summary.steps}${loss}${valLoss}  ${summary.run}`
}
