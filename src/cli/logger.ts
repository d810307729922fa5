/** What a run shows: a live line on a terminal, plain lines elsewhere, JSON lines where asked. */
import type { Output } from './output'
import type { MetricsLine } from '../training/run-folder'
import type { StepEvent, Trainer, TrainSummary } from '../training/trainer'

/** Milliseconds between two drawings of the live line. */
const REDRAW_MS = 100

/** Shows everything a trainer tells. */
export function logRun(trainer: Trainer, output: Output): void {
  let drawn = 0
  trainer.on('message', (text) => output.note(text))
  trainer.on('progress', (what, done, total) => {
    output.progress(
      `${what}: ${megabytes(done)} of ${megabytes(total)} MB (${percent(done, total)})`,
    )
    if (done === total) output.clear()
  })
  trainer.on('start', (config, numParameters) => {
    const { model, options, total_steps } = config
    output.note(
      `${count(numParameters)} parameters, vocabulary ${model.vocabSize}, ` +
        `${total_steps} steps of ${count(options.batch_size * options.seq_length * options.accumulate)} tokens`,
    )
  })
  trainer.on('step', (event) => {
    const now = performance.now()
    if (now - drawn < REDRAW_MS) return
    drawn = now
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

/** The live line: step, loss, learning rate, tokens/s, time left. */
export function liveLine(event: StepEvent): string {
  const { step, totalSteps, loss, lr, tokensPerSecond, mfu } = event
  const width = 20
  const filled = Math.round((step / totalSteps) * width)
  const bar = `${'█'.repeat(filled)}${'░'.repeat(width - filled)}`
  return `${bar} ${step}/${totalSteps}  loss ${loss.toFixed(3)}  lr ${lr.toExponential(1)}  ${count(tokensPerSecond)} tokens/s${mfu === null ? '' : `  mfu ${share(mfu)}`}  ${timeLeft(event)} left`
}

function timeLeft({ step, totalSteps, msPerStep }: StepEvent): string {
  return duration(((totalSteps - step) * msPerStep) / 1000)
}

function metricsText(line: MetricsLine): string {
  const parts = [
    `step ${line.step}`,
    `loss ${line.loss.toFixed(4)}`,
    ...(line.val_loss === undefined ? [] : [`val_loss ${line.val_loss.toFixed(4)}`]),
    `lr ${line.lr.toExponential(2)}`,
    `grad_norm ${line.grad_norm.toFixed(2)}`,
    `${count(line.tokens_per_second)} tokens/s`,
    ...(line.mfu === undefined ? [] : [`mfu ${share(line.mfu)}`]),
    duration(line.elapsed_s),
  ]
  return parts.join('  ')
}

/** The last words of a run. */
export function summaryText(summary: TrainSummary): string {
  const loss = summary.loss === null ? '' : `  loss ${summary.loss.toFixed(4)}`
  const valLoss = summary.val_loss === null ? '' : `  val_loss ${summary.val_loss.toFixed(4)}`
  return `${summary.interrupted ? 'stopped' : 'done'} at step ${summary.steps}${loss}${valLoss}  ${summary.run}`
}

/** Seconds for people: 42s, 3m05s, 2h10m. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds))
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`
  return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`
}

/** A count for people: 950, 12.3k, 4.5M, 2.1B. */
export function count(n: number): string {
  if (n < 1000) return String(Math.round(n))
  if (n < 1e6) return `${(n / 1e3).toFixed(1)}k`
  if (n < 1e9) return `${(n / 1e6).toFixed(1)}M`
  return `${(n / 1e9).toFixed(2)}B`
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1)
}

function share(part: number): string {
  return `${(100 * part).toFixed(1)}%`
}

function percent(done: number, total: number): string {
  return `${Math.floor((100 * done) / Math.max(1, total))}%`
}
