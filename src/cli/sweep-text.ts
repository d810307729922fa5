/** What a terminal shows of a sweep: a plot of the losses by step, and a table of the rates. */
import { learningRate } from '../format'
import { finalLoss, lossAxisEnd } from '../sweep/comparison'
import { DIVERGENCE_RULE } from '../sweep/divergence'
import type { SweepResult } from '../sweep/state'
import type { ToyResult } from '../sweep/toy'
import type { MetricsLine } from '../training/metrics'
import { table } from './table'
import { textPlot, type TextLine } from './text-plot'

const PLOT_ROWS = 12
const MAX_PLOT_COLUMNS = 100
/** Narrower terminals show no bars. */
const MIN_BAR_COLUMNS = 72
const MAX_BAR_WIDTH = 24

/** A result with the metrics lines of its run. */
export interface DrawnResult {
  result: SweepResult
  lines: readonly MetricsLine[]
}

/** Returns the plot and the table of a sweep. */
export function sweepText(drawn: readonly DrawnResult[], columns: number): string {
  const results = drawn.map(({ result }) => result)
  return [...lossPlot(drawn, columns), '', ...rateTable(results, columns)].join('\n')
}

/** Plots the training losses by step: a marks the first rate, b the second, and so on. */
function lossPlot(drawn: readonly DrawnResult[], columns: number): string[] {
  const lines = drawn.map(({ lines: metrics }, i): TextLine => ({
    mark: markOf(i),
    x: metrics.map(({ step }) => step),
    y: metrics.map(({ loss }) => loss),
  }))
  const firsts = lines.flatMap(({ y }) => y.slice(0, 1))
  const size = { columns: Math.min(columns, MAX_PLOT_COLUMNS) - 1, rows: PLOT_ROWS }
  return ['training loss by step', ...textPlot(lines, size, lossAxisEnd(firsts))]
}

function markOf(i: number): string {
  return String.fromCharCode('a'.charCodeAt(0) + (i % 26))
}

function rateTable(results: readonly SweepResult[], columns: number): string[] {
  const finals = results.map(finalLoss)
  const finite = finals.filter((loss) => loss !== null)
  const [best, worst] = [Math.min(...finite), Math.max(...finite)]
  const hasBars = columns >= MIN_BAR_COLUMNS
  const rows = results.map(({ lr, loss, valLoss, diverged, steps }, i) => {
    const final = finals[i] ?? null
    const bar = final === null ? '' : '█'.repeat(Math.round((MAX_BAR_WIDTH * final) / worst))
    const note = diverged ? `diverged at step ${steps}` : final === best ? 'best' : ''
    const cells = [markOf(i), learningRate(lr), number(loss), number(valLoss)]
    return [...cells, ...(hasBars && bar !== '' ? [`${bar} ${note}`.trimEnd()] : [note])]
  })
  const text = table(['', '>lr', '>loss', '>val_loss', ''], rows)
  const diverged = results.filter((result) => result.diverged)
  return [
    text,
    ...diverged.map(({ lr, reason }) => `lr ${learningRate(lr)} diverged: ${reason}`),
    ...(diverged.length > 0 ? [`diverged means ${DIVERGENCE_RULE}`] : []),
  ]
}

function number(value: number | null): string {
  return value === null ? '-' : value.toFixed(4)
}

/** Returns the table of the toy problem: the loss before each step. */
export function toyText(results: readonly ToyResult[]): string {
  const rates = results.map(({ lr }) => `lr ${lr.toExponential(0)}`.padStart(14))
  const rows = results[0]!.losses.map((_, step) => {
    const losses = results.map((result) => result.losses[step]!.toExponential(4).padStart(14))
    return `${String(step).padStart(4)} ${losses.join('')}`
  })
  return [`step ${rates.join('')}`, ...rows].join('\n')
}
