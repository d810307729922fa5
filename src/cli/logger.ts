/**
 * Output of a training run: a live line on a terminal, metrics lines, and JSON lines on request.
 * Without a terminal, a plain line is printed after the first step and then at intervals.
 */
import type { Output } from './output'
import { ByteProgress, CountProgress } from './progress'
import { START_INDENT, liveLine, metricsText, plainLine, startText } from './run-text'
import { startWarnings } from './run-warnings'
import { columnsOf, dim, wrap } from './terminal'
import type { StepEvent, Trainer } from '../training/trainer'

/** Milliseconds between two updates of the live line. */
const REDRAW_MS = 100
/** Milliseconds between two plain lines, where there is no terminal. */
const PLAIN_LINE_MS = 30_000
/** Maximum number of losses in the sparkline. */
const MOST_LOSSES = 2000

/** Returns callbacks that print the messages and the progress of preparing a run. */
export function preparationReport(output: Output): {
  message: (text: string) => void
  progress: (what: string, done: number, total: number) => void
} {
  let reading: { what: string; progress: ByteProgress } | null = null
  return {
    message: (text) => output.note(wrap(text, columnsOf(process.stderr), 2)),
    progress: (what, done, total) => {
      if (reading?.what !== what) reading = { what, progress: new ByteProgress(what, output) }
      reading.progress.report(done, total)
      if (done === total) output.clear()
    },
  }
}

/** Prints every event of a trainer. */
export function logRun(trainer: Trainer, output: Output): void {
  const { message, progress } = preparationReport(output)
  trainer.on('message', message)
  trainer.on('progress', progress)
  trainer.on('start', (config, numParameters) => {
    const columns = columnsOf(process.stderr)
    for (const line of startText(config, numParameters)) {
      output.note(dim(wrap(line, columns, START_INDENT), process.stderr))
    }
    for (const warning of startWarnings(config, numParameters)) {
      output.note(wrap(`warning: ${warning}`, columns, START_INDENT))
    }
  })
  let evaluating: CountProgress | null = null
  trainer.on('evaluating', (done, total) => {
    evaluating ??= new CountProgress('evaluating', output, 'tokens')
    evaluating.report(done, total)
    if (done === total) evaluating = null
  })
  const steps = new StepLines(output)
  trainer.on('step', (event) => steps.show(event))
  trainer.on('metrics', (line) => {
    output.clear()
    steps.metricsPrinted()
    output.line(line)
    output.text(metricsText(line, columnsOf(process.stdout)))
    if (line.sample !== undefined) output.text(`  sample: ${JSON.stringify(line.sample)}`)
  })
  trainer.on('done', () => output.clear())
}

/** Shows the steps between two metrics lines. */
class StepLines {
  readonly #losses: number[] = []
  #shown: number | null = null

  constructor(private readonly output: Output) {}

  show(event: StepEvent): void {
    this.#losses.push(event.loss)
    if (this.#losses.length > MOST_LOSSES) this.#losses.shift()
    const now = performance.now()
    const interval = this.output.isLive ? REDRAW_MS : PLAIN_LINE_MS
    if (this.#shown !== null && now - this.#shown < interval) return
    this.#shown = now
    const columns = columnsOf(process.stderr)
    if (columns === null) this.output.note(plainLine(event))
    else this.output.progress(liveLine(event, this.#losses, columns))
  }

  /** Postpones the next plain line, since a metrics line has just been printed. */
  metricsPrinted(): void {
    if (!this.output.isLive) this.#shown = performance.now()
  }
}
