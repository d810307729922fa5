/** The figures of the runs that are shown: one run in tiles, several in a table. */
import { slot } from './colours.js'
import type { Run } from './data.js'
import { byId, h, tableOf } from './dom.js'
import { count, duration, mebibytes, percent, value, whole } from './format.js'

type Figure = readonly [name: string, text: string, more?: string]

/** Shows the figures of `runs`. */
export function showSummary(runs: readonly Run[], places: readonly string[], all: number): void {
  const box = byId('summary')
  if (all === 0) return box.replaceChildren(emptyState(places))
  if (runs.length === 0) {
    box.replaceChildren(h('p', { class: 'empty' }, 'Tick a run in the list to see its charts.'))
  } else if (runs.length === 1) box.replaceChildren(...tiles(runs[0]!))
  else box.replaceChildren(h('div', { class: 'scroll' }, comparison(runs)))
}

function emptyState(places: readonly string[]): HTMLElement {
  return h(
    'div',
    { class: 'empty' },
    h('h2', {}, 'No runs yet'),
    h(
      'p',
      {},
      `Nothing has been trained in ${places.join(', ')}. Start a run, and it appears here:`,
    ),
    h('pre', {}, 'kindling train --corpus book.txt --preset char --run runs/book'),
  )
}

function tiles(run: Run): HTMLElement[] {
  const { total_steps: total } = run
  const head = h(
    'div',
    { class: 'run-head' },
    h('h2', {}, h('i', { class: `dot run-${slot(run.id)}` }), run.name),
    h('span', { class: `state ${run.state}` }, run.state),
    run.note === null ? null : h('span', { class: 'note' }, run.note),
  )
  const bar = h('progress', { max: String(total ?? 1), value: String(run.steps) })
  bar.setAttribute('aria-label', 'Steps done')
  const list = h(
    'dl',
    { class: 'tiles' },
    ...figures(run).map(([name, text, more]) =>
      h('div', {}, h('dt', {}, name), h('dd', {}, text, more ? h('small', {}, more) : null)),
    ),
  )
  return [head, ...(total === null ? [] : [bar]), list]
}

function figures(run: Run): Figure[] {
  const { total_steps: total, elapsed_s: elapsed, steps } = run
  const isGoing = run.state === 'running' && total !== null && elapsed !== null && steps > 0
  const left = isGoing ? `${duration(((total - steps) * elapsed) / steps)} left` : undefined
  const optional = (
    name: string,
    n: number | null | undefined,
    f: (n: number) => string,
  ): Figure[] => (n === null || n === undefined ? [] : [[name, f(n)]])
  return [
    ['Step', whole(steps), total === null ? undefined : `of ${whole(total)}`],
    ...optional('Loss', run.loss, value),
    ...optional('Validation loss', run.val_loss, value),
    ...optional('Tokens', run.tokens, count),
    ...optional('Tokens/s', run.tokens_per_second, count),
    ...optional('MFU', run.mfu, percent),
    ...optional('Memory', run.memory_mib, mebibytes),
    ...(elapsed === null ? [] : [['Time', duration(elapsed), left] as Figure]),
  ].map(([name, text, more]) => (more === undefined ? [name!, text!] : [name!, text!, more]))
}

function comparison(runs: readonly Run[]): HTMLElement {
  const or = (n: number | null | undefined, f: (n: number) => string): string =>
    n === null || n === undefined ? '–' : f(n)
  const head = ['Run', 'State', 'Steps', 'Loss', 'Validation', 'Tokens', 'Tokens/s', 'MFU', 'Time']
  const rows = runs.map((run) => [
    h('span', {}, h('i', { class: `dot run-${slot(run.id)}` }), run.name),
    h('span', { class: `state ${run.state}` }, run.state),
    `${whole(run.steps)}${run.total_steps === null ? '' : ` / ${whole(run.total_steps)}`}`,
    or(run.loss, value),
    or(run.val_loss, value),
    or(run.tokens, count),
    or(run.tokens_per_second, count),
    or(run.mfu, percent),
    or(run.elapsed_s, duration),
  ])
  return tableOf('Runs that the charts show', head, rows)
}
