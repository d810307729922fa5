/** The HTML of a report: one file without scripts, which requests nothing. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { METRICS, type Metric } from '../runs/series'
import { thin } from '../runs/thin'
import { chart, type Line } from './chart'
import type { ReportedRun } from './collect'
import { short, whole } from '../format'
import { Html, html } from './html'
import { accountingRows, optionRows, resultRows, systemRows, type Row } from './rows'

/** Buckets of a line, each with at most two points. */
const BUCKETS = 260
/** Longer lines are drawn faint, with a smoothed one in front. */
const MANY_POINTS = 400
const SMOOTHING = 0.6
/** Number of colours in the palette. */
export const COLOURS = 8

const CHARTS: readonly [Metric, string, string][] = [
  ['loss', 'Training loss', 'nats per token'],
  ['val_loss', 'Validation loss', 'nats per token'],
  ['lr', 'Learning rate', ''],
  ['grad_norm', 'Gradient norm', 'before clipping'],
  ['tokens_per_second', 'Speed', 'tokens/s'],
  ['mfu', 'MFU', 'share of the peak'],
  ['memory_mib', 'Memory', 'MiB'],
  ['device_memory_mib', 'GPU memory', 'MiB, peak'],
]

/** Title and sections that precede the report of the runs. */
export interface Lead {
  title: string
  sections: readonly (Html | null)[]
}

/** Returns the report of several runs. */
export function reportPage(runs: readonly ReportedRun[], madeAt: Date, lead?: Lead): string {
  const title = lead?.title ?? runs.map(({ info }) => info.name).join(', ')
  const charts = CHARTS.map(([metric, name, unit]) =>
    chart({
      title: name,
      unit,
      lines: linesOf(runs, metric),
      format: metric === 'mfu' ? share : short,
    }),
  )
  const isEmpty = charts.every((drawn) => drawn === null)
  const policy = "default-src 'none'; style-src 'unsafe-inline'"
  const page = html`<!doctype html>
    <html lang="en" data-theme="auto">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta http-equiv="Content-Security-Policy" content="${policy}" />
        <meta name="color-scheme" content="light dark" />
        <title>${title} · Kindling</title>
        <style>
          ${style()}
        </style>
      </head>
      <body>
        <header>
          <h1>${lead || runs.length === 1 ? title : `${runs.length} runs`}</h1>
          <p>
            Kindling's report of ${madeAt.toISOString().slice(0, 16).replace('T', ' ')} UTC, by step
          </p>
        </header>
        <main>
          ${lead?.sections ?? null} ${section('Results', [table(runs, resultRows(runs))])}
          ${section('Charts', [isEmpty ? null : legend(runs), ...charts], 'charts')}
          ${section('Samples', runs.map(samplesOf), 'charts')}
          ${section('Accounting', [table(runs, accountingRows(runs))])}
          ${section('Configuration', [options(runs)])}
          ${section('System', [table(runs, systemRows(runs))])}
          ${section('Repeat', runs.map(commandOf))}
        </main>
      </body>
    </html> `
  return page.text
}

/** A fraction as a percentage. */
function share(value: number, digits: number): string {
  return `${Number((100 * value).toPrecision(digits))}%`
}

export function section(title: string, parts: readonly (Html | null)[], kind = ''): Html | null {
  const shown = parts.filter((part) => part !== null)
  if (shown.length === 0) return null
  return html`<section>
    <h2>${title}</h2>
    <div class="${kind}">${shown}</div>
  </section>`
}

function linesOf(runs: readonly ReportedRun[], metric: Metric): Line[] {
  const lines: Line[] = []
  for (const [i, { columns }] of runs.entries()) {
    const series = columns.series(metric)
    if (series === null || !METRICS.includes(metric)) continue
    const window = { from: columns.first('step'), to: columns.last('step') }
    const points = thin(series, 'step', window, BUCKETS)
    const line = { slot: i % COLOURS, isDashed: i >= COLOURS / 2 }
    if (series.length <= MANY_POINTS || metric === 'lr') lines.push({ ...line, points })
    else {
      const smoothed = thin(columns.smoothed(metric, SMOOTHING)!, 'step', window, BUCKETS)
      lines.unshift({ ...line, points, isFaint: true })
      lines.push({ ...line, points: smoothed })
    }
  }
  return lines
}

/** The colours of several runs; null for a single one. */
function legend(runs: readonly ReportedRun[]): Html | null {
  if (runs.length < 2) return null
  return html`<p class="legend">
    ${runs.map(
      ({ info }, i) => html`<span><i class="dot run-${i % COLOURS}"></i>${info.name}</span>`,
    )}
  </p>`
}

/** A table with a column per run; null without rows. */
function table(runs: readonly ReportedRun[], rows: readonly Row[]): Html | null {
  if (rows.length === 0) return null
  return html`<div class="card scroll">
    <table>
      <thead>
        <tr>
          <td></td>
          ${runs.map(
            ({ info }, i) =>
              html`<th scope="col"><i class="dot run-${i % COLOURS}"></i>${info.name}</th>`,
          )}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          ({ name, cells, isFaint, differs, title }) =>
            html`<tr class="${isFaint ? 'muted' : differs ? 'differs' : ''}">
              <th scope="row" title="${title ?? ''}">${name}</th>
              ${cells.map((cell) => html`<td>${cell}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`
}

/** The options that differ from the defaults, or between the runs; the others can be unfolded. */
function options(runs: readonly ReportedRun[]): Html | null {
  const rows = optionRows(runs)
  if (rows.length === 0) return null
  const [notable, others] = [rows.filter((row) => !row.isFaint), rows.filter((row) => row.isFaint)]
  return html`${table(runs, notable)}
    <details>
      <summary>${others.length} options at their defaults</summary>
      ${table(runs, others)}
    </details>`
}

function samplesOf({ info, samples }: ReportedRun, i: number): Html | null {
  if (samples.length === 0) return null
  return html`<div class="card">
    <h3><i class="dot run-${i % COLOURS}"></i>${info.name}</h3>
    ${samples.map(
      ({ step, text }) =>
        html`<p class="muted">step ${whole(step)}</p>
          <blockquote>${text}</blockquote>`,
    )}
  </div>`
}

function commandOf({ info, command }: ReportedRun): Html | null {
  if (command === null) return null
  return html`<div class="card">
    <h3>${info.name}</h3>
    <pre>${command}</pre>
  </div>`
}

/** Returns the style sheet: the dashboard's palette and base styles, and the report's own. */
function style(): Html {
  const page = join(__dirname, '..', 'dashboard', 'page')
  const files = [join(page, 'palette.css'), join(page, 'base.css'), join(__dirname, 'report.css')]
  return new Html(files.map((file) => readFileSync(file, 'utf8')).join(''))
}
