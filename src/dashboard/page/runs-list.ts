/** The list of runs: which of them the charts show, and their states. */
import { slot } from './colours.js'
import type { Run } from './data.js'
import { byId, h } from './dom.js'
import { value } from './format.js'

/** Maximum number of runs shown at first. */
const SHOWN_AT_FIRST = 8

/** The selection of runs. */
export class RunsList {
  readonly #selected = new Set<number>()
  readonly #known = new Set<number>()
  #signature = ''

  constructor(private readonly onChange: () => void) {}

  /** The runs that the charts show, in the order of the list. */
  selected(runs: readonly Run[]): Run[] {
    return runs.filter(({ id }) => this.#selected.has(id))
  }

  /**
   * Updates the list. Selects the latest runs at first, and new runs later only if they are
   * running. Keeps the user's choices.
   */
  update(runs: readonly Run[]): void {
    const isFirst = this.#known.size === 0
    const byTime = [...runs].sort((a, b) => (b.updated_at ?? '').localeCompare(a.updated_at ?? ''))
    for (const run of byTime) {
      if (this.#known.has(run.id)) continue
      this.#known.add(run.id)
      const isWanted = isFirst ? this.#selected.size < SHOWN_AT_FIRST : run.state === 'running'
      if (isWanted && (run.lines ?? run.loss ?? run.steps) !== 0) this.#selected.add(run.id)
    }
    const signature = JSON.stringify([
      runs.map((run) => [run.id, run.name, run.state, run.note, run.loss, run.steps]),
      [...this.#selected],
    ])
    if (signature === this.#signature) return
    this.#signature = signature
    const focused = document.activeElement?.id
    byId('runs').replaceChildren(...runs.map((run) => this.#item(run)))
    byId('runs-count').textContent = String(runs.length)
    if (focused?.startsWith('run-')) document.getElementById(focused)?.focus()
  }

  #item(run: Run): HTMLElement {
    const box = h('input', { type: 'checkbox', id: `run-${run.id}` })
    box.checked = this.#selected.has(run.id)
    box.addEventListener('change', () => {
      if (box.checked) this.#selected.add(run.id)
      else this.#selected.delete(run.id)
      this.onChange()
    })
    const facts = [
      run.loss === null ? null : `loss ${value(run.loss)}`,
      run.total_steps === null ? null : `${Math.round((100 * run.steps) / run.total_steps)}%`,
    ].filter((fact) => fact !== null)
    const name = h(
      'label',
      { for: box.id, title: run.path },
      h('i', { class: `dot run-${slot(run.id)}` }),
      h('span', { class: 'name' }, run.name),
      h('span', { class: `state ${run.state}` }, run.state),
      h('span', { class: 'facts' }, facts.join(' · ')),
      run.note === null || run.state === 'running' ? null : h('span', { class: 'note' }, run.note),
    )
    return h('li', {}, box, name)
  }
}
