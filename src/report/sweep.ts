/** The picture of a learning-rate sweep: final loss by rate, loss by step, and a table. */
import { learningRate, short, whole } from '../format'
import { thin } from '../runs/thin'
import { chart, type Line } from './chart'
import type { ReportedRun } from './collect'
import { html, type Html } from './html'
import { COLOURS, section, type Lead } from './page'
import { finalLoss, lossAxisEnd } from '../sweep/comparison'
import { DIVERGENCE_RULE } from '../sweep/divergence'
import type { SweepResult } from '../sweep/state'

const BUCKETS = 260

/** Returns what a sweep's report begins with. */
export function sweepLead(results: readonly SweepResult[], runs: readonly ReportedRun[]): Lead {
  const rates = lrOf(results)
  return {
    title: `Learning rates from ${learningRate(Math.min(...rates))} to ${learningRate(Math.max(...rates))}`,
    sections: [
      section('Sweep', [byRate(results), byStep(runs)], 'charts'),
      section('Rates', [
        table(results),
        html`<p class="muted">Diverged: ${DIVERGENCE_RULE}. Such a run is stopped early.</p>`,
      ]),
    ],
  }
}

const lrOf = (results: readonly { lr: number }[]): number[] => results.map(({ lr }) => lr)

/** Final loss by rate: a line through the rates that did not diverge. */
function byRate(results: readonly SweepResult[]): Html | null {
  const known = results
    .flatMap((result) => {
      const loss = finalLoss(result)
      return loss === null ? [] : [{ lr: result.lr, loss }]
    })
    .sort((a, b) => a.lr - b.lr)
  const points = { x: lrOf(known), y: known.map(({ loss }) => loss) }
  const isValid = results.some(({ valLoss }) => valLoss !== null)
  return chart({
    title: `Final ${isValid ? 'validation' : 'training'} loss by learning rate`,
    unit: 'nats per token',
    lines: [{ slot: 0, points, hasMarks: true }],
    format: short,
    formatX: learningRate,
  })
}

/** Training loss by step, a line per rate. Lines that diverge run along the top. */
function byStep(runs: readonly ReportedRun[]): Html | null {
  const lines = runs.flatMap(({ columns }, i): Line[] => {
    const series = columns.series('loss')
    if (series === null) return []
    const window = { from: columns.first('step'), to: columns.last('step') }
    const points = thin(series, 'step', window, BUCKETS)
    return [{ slot: i % COLOURS, isDashed: i >= COLOURS / 2, points }]
  })
  const firsts = lines.flatMap(({ points }) => points.y.slice(0, 1))
  return chart({
    title: 'Training loss by step',
    unit: 'nats per token; the colours are those of the table',
    lines,
    format: short,
    ...(firsts.length > 0 && { cut: lossAxisEnd(firsts) }),
  })
}

function table(results: readonly SweepResult[]): Html {
  const finals = results.map(finalLoss).filter((loss) => loss !== null)
  const best = Math.min(...finals)
  const four = (loss: number | null): string => (loss === null ? '–' : loss.toFixed(4))
  return html`<div class="card scroll">
    <table>
      <thead>
        <tr>
          ${['rate', 'training loss', 'validation loss', 'steps', ''].map(
            (name) => html`<th scope="col">${name}</th>`,
          )}
        </tr>
      </thead>
      <tbody>
        ${results.map((result, i) => {
          const { lr, loss, valLoss, steps, reason } = result
          const isBest = finalLoss(result) === best
          const note = reason === null ? (isBest ? 'best' : '') : `diverged: ${reason}`
          return html`<tr class="${isBest ? 'differs' : ''}">
            <th scope="row"><i class="dot run-${i % COLOURS}"></i>${learningRate(lr)}</th>
            ${[four(loss), four(valLoss), whole(steps), note].map((cell) => html`<td>${cell}</td>`)}
          </tr>`
        })}
      </tbody>
    </table>
  </div>`
}
