/** The samples of the runs that are shown, the newest first. */
import { slot } from './colours.js'
import { get, type Run, type Sample } from './data.js'
import { byId, h } from './dom.js'
import { whole } from './format.js'

/** Samples of a run that are shown at first. */
const PAGE = 3

export class SamplesView {
  readonly #limits = new Map<number, number>()
  #shown = ''

  async update(runs: readonly Run[]): Promise<void> {
    const key = runs.map((run) => `${run.id} ${run.num_samples} ${this.#limitOf(run)}`).join()
    if (key === this.#shown) return
    this.#shown = key
    const found = await Promise.all(
      runs.map(async (run) => {
        const query = { ids: String(run.id), limit: String(this.#limitOf(run)) }
        return (await get<{ samples: Sample[] }>('samples', query))?.samples ?? []
      }),
    )
    const columns = runs.map((run, i) => this.#column(run, found[i]!, runs))
    const isEmpty = found.every((samples) => samples.length === 0)
    byId('samples-section').hidden = runs.length === 0
    byId('samples').replaceChildren(
      ...(isEmpty
        ? [h('p', { class: 'empty' }, 'No samples yet: see --sample-interval of kindling train.')]
        : columns.filter((_, i) => found[i]!.length > 0)),
    )
  }

  #limitOf(run: Run): number {
    return this.#limits.get(run.id) ?? PAGE
  }

  #column(run: Run, samples: readonly Sample[], runs: readonly Run[]): HTMLElement {
    const items = samples.map(({ step, text }) =>
      h('li', {}, h('span', { class: 'step' }, `step ${whole(step)}`), h('blockquote', {}, text)),
    )
    const more = h('button', { type: 'button' }, 'Earlier samples')
    more.addEventListener('click', () => {
      this.#limits.set(run.id, this.#limitOf(run) + 10)
      void this.update(runs)
    })
    const hasMore = (run.num_samples ?? 0) > samples.length && samples.length < 50
    return h(
      'div',
      { class: 'card' },
      h('h3', {}, h('i', { class: `dot run-${slot(run.id)}` }), run.name),
      h('ol', {}, ...items),
      hasMore ? more : null,
    )
  }
}
