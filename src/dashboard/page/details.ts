/** Configuration, accounting and system of the runs that are shown, side by side. */
import type { Details, Run } from './data.js'
import { get } from './data.js'
import { byId, h, tableOf } from './dom.js'
import { count, duration, percent, value, whole } from './format.js'

/** Maximum number of columns in the tables. */
const MAX_COLUMNS = 8

/**
 * The details of the runs. They are requested again when a run changes state, and every 1000 steps.
 */
export class DetailsView {
  readonly #known = new Map<string, Details>()
  #shown = ''

  constructor() {
    byId<HTMLInputElement>('only-changed').addEventListener('change', () => {
      this.#shown = ''
      void this.update(this.#runs)
    })
  }

  #runs: readonly Run[] = []

  async update(runs: readonly Run[]): Promise<void> {
    this.#runs = runs.slice(0, MAX_COLUMNS)
    const keys = this.#runs.map((run) => `${run.id} ${run.state} ${Math.floor(run.steps / 1000)}`)
    if (this.#shown === keys.join()) return
    this.#shown = keys.join()
    await Promise.all(
      this.#runs.map(async (run, i) => {
        if (this.#known.has(keys[i]!)) return
        const details = await get<Details>('run', { ids: String(run.id) })
        if (details) this.#known.set(keys[i]!, details)
      }),
    )
    const found = keys.map((key) => this.#known.get(key)).filter((known) => known !== undefined)
    const shown = this.#runs.filter((run) => found.some(({ id }) => id === run.id))
    byId('details-section').hidden = shown.length === 0
    byId('details').replaceChildren(...tables(shown, found))
  }
}

function tables(runs: readonly Run[], details: readonly Details[]): HTMLElement[] {
  const head = ['', ...runs.map(({ name }) => name)]
  const section = (title: string, rows: string[][]): HTMLElement | null => {
    if (rows.length === 0) return null
    const table = tableOf(title, head, rows)
    return h('div', { class: 'card' }, h('h3', {}, title), h('div', { class: 'scroll' }, table))
  }
  const commands = details.map(({ command }) => command)
  return [
    section('Options', optionRows(details)),
    section('Accounting', accountingRows(details)),
    section('System', systemRows(details)),
    h(
      'div',
      { class: 'card' },
      h('h3', {}, 'Repeat'),
      ...commands.flatMap((command, i) =>
        command === null
          ? []
          : [
              ...(commands.length > 1 ? [h('p', {}, runs[i]!.name)] : []),
              h('pre', { tabindex: '0' }, command),
            ],
      ),
    ),
  ].filter((element) => element !== null)
}

/**
 * Returns a row per option. If the user wants only options that differ, these are the ones that
 * differ between the runs or, for a single run, from the default.
 */
function optionRows(details: readonly Details[]): string[][] {
  const onlyDifferent = byId<HTMLInputElement>('only-changed').checked
  const names = [...new Set(details.flatMap(({ options }) => options.map(({ name }) => name)))]
  return names.flatMap((name) => {
    const found = details.map(({ options }) => options.find((option) => option.name === name))
    const values = found.map((option) => option?.value ?? '')
    const isDifferent =
      details.length === 1 ? found[0]?.is_default === false : new Set(values).size > 1
    return isDifferent || !onlyDifferent ? [[name, ...values]] : []
  })
}

function accountingRows(details: readonly Details[]): string[][] {
  const row = (
    name: string,
    cell: (accounting: NonNullable<Details['accounting']>) => string | null,
  ): string[][] => {
    const cells = details.map(({ accounting }) => (accounting && cell(accounting)) ?? '')
    return cells.every((text) => text === '') ? [] : [[name, ...cells]]
  }
  const or = (n: number | null, format: (n: number) => string): string | null =>
    n === null ? null : format(n)
  return [
    ...row('parameters', (a) => whole(a.parameters)),
    ...row('tokens', (a) => whole(a.tokens)),
    ...row('tokens a parameter', (a) => value(a.tokens_per_parameter)),
    ...row('FLOPs a token', (a) => count(a.flops_per_token)),
    ...row('FLOPs', (a) => `${a.flops.toExponential(2)}`),
    ...row('time', (a) => or(a.elapsed_s, duration)),
    ...row('mean tokens/s', (a) => or(a.mean_tokens_per_second, count)),
    ...row('mean FLOP/s', (a) => or(a.mean_flops_per_second, count)),
    ...row('mean MFU', (a) => or(a.mfu, percent)),
  ]
}

function systemRows(details: readonly Details[]): string[][] {
  const names = [...new Set(details.flatMap(({ system }) => Object.keys(system)))]
  return names.map((name) => [
    name.replaceAll('_', ' '),
    ...details.map(({ system }) => String(system[name] ?? '')),
  ])
}
