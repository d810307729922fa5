/** One chart: uPlot with a readout at the cursor, keyboard control, and its data as a table. */
import uPlot from './vendor/uPlot.esm.js'
import { colourOf, dashesOf, faded, slot, variable } from './colours.js'
import type { Axis, Points, Run, RunSeries, Window } from './data.js'
import { h, tableOf } from './dom.js'
import { count, duration, whole } from './format.js'

/** What a chart shows. */
export interface ChartKind {
  metric: string
  title: string
  /** Unit, or another explanation. */
  unit: string
  /** Formats a value for people. */
  format: (value: number) => string
  /** Formats a label of the y axis. Default: `format`. */
  tick?: (value: number, digits: number) => string
  /** May have a logarithmic scale. */
  log?: boolean
  /** A second metric, drawn as points, such as the validation loss. */
  points?: { metric: string; name: string }
}

/** State that all charts share. */
export interface ChartContext {
  runs: Run[]
  axis: Axis
  window: Window
  log: boolean
  series: Record<string, RunSeries[]>
}

/** Callbacks from a chart to the page. */
export interface ChartEvents {
  zoom: (window: Window) => void
  reset: () => void
  say: (text: string) => void
}

const HEIGHT = 220
const TABLE_ROWS = 30
/** Lines of more points are drawn thin and without dashes. */
const MANY_POINTS = 300
/** Point series, such as validation losses, with more points are drawn as a line without dots. */
const MANY_DOTS = 60
const FORMATS: Record<Axis, (value: number, digits?: number) => string> = {
  step: count,
  tokens: count,
  elapsed_s: duration,
}
/** Formats of the position under the cursor, in full. */
const POSITIONS: Record<Axis, (value: number) => string> = {
  step: whole,
  tokens: whole,
  elapsed_s: duration,
}
const AXIS_NAMES: Record<Axis, string> = { step: 'step', tokens: 'tokens', elapsed_s: 'time' }

/** A line of a chart, or a series of points. */
interface Trace {
  run: Run
  name: string
  points: Points
  style: Partial<uPlot.Series>
  /**
   * `width` and `dash` vary with the number of points. They are kept out of `style`, so that a zoom
   * need not rebuild the plot.
   */
  width: number
  dash: number[]
  hasDots: boolean
  /** Appears in the readout at the cursor. */
  isRead: boolean
}

export class Chart {
  readonly element: HTMLElement
  readonly #plotBox = h('div', { class: 'plot' })
  readonly #readout = h('div', { class: 'readout', 'aria-hidden': 'true', hidden: '' })
  readonly #table = h('details', { class: 'behind' }, h('summary', {}, 'Data as a table'))
  #plot: uPlot | null = null
  #signature = ''
  #traces: Trace[] = []
  #isInView = false
  #isDrawn = true
  #context: ChartContext | null = null

  constructor(
    readonly kind: ChartKind,
    private readonly events: ChartEvents,
  ) {
    const title = h('h3', {}, kind.title, kind.unit === '' ? null : h('small', {}, kind.unit))
    this.#plotBox.tabIndex = 0
    this.#plotBox.setAttribute('role', 'group')
    this.#plotBox.setAttribute('aria-roledescription', 'chart')
    this.#plotBox.setAttribute('aria-describedby', 'hint')
    this.#plotBox.setAttribute('aria-label', kind.title)
    this.#plotBox.addEventListener('keydown', (event) => this.#onKey(event))
    this.#table.addEventListener('toggle', () => this.#fillTable())
    const frame = h('div', { class: 'frame' }, this.#plotBox, this.#readout)
    this.element = h('article', { class: 'chart' }, title, frame, this.#table)
    new ResizeObserver(() => this.#resize()).observe(this.#plotBox)
    new IntersectionObserver(([entry]) => this.#onView(entry!.isIntersecting), {
      rootMargin: '100px',
    }).observe(this.element)
  }

  /** Width of the drawing in pixels. */
  get width(): number {
    return Math.max(100, this.#plotBox.clientWidth)
  }

  /**
   * Draws now if the chart is in view, else once it is. `afresh` rebuilds the plot, for a new
   * theme.
   */
  draw(context: ChartContext, afresh = false): void {
    this.#context = context
    this.#traces = this.#tracesOf(context)
    const isEmpty = this.#traces.every(({ points }) => points.x.length === 0)
    this.element.hidden = isEmpty
    if (afresh) this.#signature = ''
    this.#isDrawn = false
    if (!isEmpty && this.#isInView) this.#drawNow(context)
  }

  #drawNow(context: ChartContext): void {
    this.#isDrawn = true
    const signature = JSON.stringify([
      this.#traces.map(({ run, name }) => [run.id, name]),
      context.axis,
      context.log,
    ])
    if (signature !== this.#signature) this.#build(context)
    this.#signature = signature
    const { from, to } = context.window
    for (const [i, { width, dash }] of this.#traces.entries()) {
      Object.assign(this.#plot!.series[i + 1]!, { width, dash })
    }
    this.#plot!.batch(() => {
      this.#plot!.setData(this.#data(), false)
      this.#plot!.setScale('x', { min: from, max: to > from ? to : from + 1 })
    })
    this.#describe(context)
    this.#fillTable()
  }

  #tracesOf({ runs, series, log }: ChartContext): Trace[] {
    const traces: Trace[] = []
    for (const run of runs) {
      const raw = series[this.kind.metric]?.find(({ id }) => id === run.id)
      if (raw) traces.push(...linesOf(run, raw, this.kind.title))
    }
    const { points } = this.kind
    for (const run of points ? runs : []) {
      const found = series[points!.metric]?.find(({ id }) => id === run.id)
      if (found) traces.push(dotsOf(run, found, points!.name))
    }
    if (log) for (const trace of traces) trace.points = positive(trace.points)
    return traces
  }

  #data(): uPlot.AlignedData {
    const tables = this.#traces.map(({ points }) => [points.x, points.y] as uPlot.AlignedData)
    return uPlot.join(tables)
  }

  #build({ axis, log }: ChartContext): void {
    this.#plot?.destroy()
    const axisStyle = (values: (value: number, digits: number) => string): Partial<uPlot.Axis> => ({
      stroke: variable('--muted'),
      grid: { stroke: variable('--grid'), width: 1 },
      ticks: { show: false },
      font: '12px system-ui, sans-serif',
      values: (_, splits) => {
        const digits = digitsOf(splits)
        return splits.map((split) => (split === null ? '' : values(split, digits)))
      },
    })
    const options: uPlot.Options = {
      width: this.width,
      height: HEIGHT,
      legend: { show: false },
      padding: [10, 24, 0, 0],
      cursor: {
        y: false,
        sync: {
          key: 'kindling',
          setSeries: false,
          // The other charts follow only the cursor here. A drag reaches them through the page.
          filters: {
            pub: (type) => type === 'mousemove' || type === 'mouseleave',
            sub: () => true,
          },
        },
        drag: { x: true, y: false, setScale: false },
        points: { size: 7 },
        bind: { dblclick: () => () => (this.events.reset(), null) },
      },
      scales: {
        x: { time: false, auto: false },
        y: { distr: log && this.kind.log ? 3 : 1 },
      },
      axes: [
        { ...axisStyle(FORMATS[axis]), space: 70, size: 28 },
        { ...axisStyle(this.kind.tick ?? this.kind.format), size: 56 },
      ],
      series: [{}, ...this.#traces.map((trace) => this.#seriesOf(trace))],
      hooks: {
        setSelect: [(plot) => this.#onSelect(plot)],
        setCursor: [() => this.#showReadout()],
      },
    }
    this.#plotBox.replaceChildren()
    this.#plot = new uPlot(options, this.#data(), this.#plotBox)
  }

  #seriesOf({ style, width, dash }: Trace): uPlot.Series {
    const hasDots = (_: uPlot, i: number): boolean => this.#traces[i - 1]?.hasDots ?? false
    return { ...style, width, dash, spanGaps: true, points: { ...style.points, show: hasDots } }
  }

  #onView(isInView: boolean): void {
    this.#isInView = isInView
    if (isInView && !this.#isDrawn && this.#context) this.#drawNow(this.#context)
  }

  #resize(): void {
    if (this.#plot && this.#plot.width !== this.width) {
      this.#plot.setSize({ width: this.width, height: HEIGHT })
    }
  }

  #onSelect(plot: uPlot): void {
    const { left, width } = plot.select
    if (width < 4) return
    const window = { from: plot.posToVal(left, 'x'), to: plot.posToVal(left + width, 'x') }
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
    this.events.zoom(window)
  }

  /** Returns the value of each line at its point nearest to `x`. */
  #valuesAt(x: number): { run: Run; name: string; y: number }[] {
    return this.#traces
      .filter(({ isRead, points }) => isRead && points.x.length > 0)
      .map(({ run, name, points }) => ({ run, name, y: points.y[nearest(points.x, x)]! }))
  }

  #showReadout(): void {
    const left = this.#plot?.cursor.left ?? -1
    this.#readout.hidden = left < 0 || !this.#context
    if (this.#readout.hidden) return
    const x = this.#plot!.posToVal(left, 'x')
    const { axis, runs } = this.#context!
    const items = this.#valuesAt(x).map(({ run, name, y }) => {
      const label = runs.length > 1 ? run.name : name
      const dot = h('i', { class: `dot run-${slot(run.id)}` })
      return h('p', {}, dot, h('span', {}, label), h('b', {}, this.kind.format(y)))
    })
    this.#readout.replaceChildren(h('p', {}, `${AXIS_NAMES[axis]} ${POSITIONS[axis](x)}`), ...items)
    const isRight = left > this.#plot!.over.clientWidth / 2
    this.#readout.classList.toggle('left', isRight)
  }

  #onKey(event: KeyboardEvent): void {
    const plot = this.#plot
    if (!plot || !this.#context) return
    const { from, to } = this.#context.window
    const span = to - from
    const left = plot.cursor.left ?? -1
    const at = left < 0 ? from + span / 2 : plot.posToVal(left, 'x')
    const direction = event.key === 'ArrowLeft' ? -1 : 1
    if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      if (event.shiftKey) {
        this.events.zoom({ from: from + (direction * span) / 4, to: to + (direction * span) / 4 })
      } else this.#moveTo(at + (direction * span) / 50)
    } else if (event.key === 'Home') this.#moveTo(from)
    else if (event.key === 'End') this.#moveTo(to)
    else if (event.key === '+' || event.key === '=') {
      this.events.zoom({ from: at - (at - from) / 2, to: at + (to - at) / 2 })
    } else if (event.key === '-') {
      this.events.zoom({ from: at - (at - from) * 2, to: at + (to - at) * 2 })
    } else if (event.key === '0' || event.key === 'Escape') this.events.reset()
    else return
    event.preventDefault()
  }

  #moveTo(x: number): void {
    const { window, axis } = this.#context!
    const at = Math.min(window.to, Math.max(window.from, x))
    const plot = this.#plot!
    plot.setCursor({ left: plot.valToPos(at, 'x'), top: 10 })
    const values = this.#valuesAt(at).map(
      ({ run, name, y }) => `${run.name}, ${name}: ${this.kind.format(y)}`,
    )
    this.events.say(`${AXIS_NAMES[axis]} ${FORMATS[axis](at)}. ${values.join('; ')}`)
  }

  #describe({ axis, window }: ChartContext): void {
    const last = this.#valuesAt(window.to).map(
      ({ run, name, y }) => `${run.name}, ${name}, ends at ${this.kind.format(y)}`,
    )
    const format = FORMATS[axis]
    const span = `${AXIS_NAMES[axis]} ${format(window.from)} to ${format(window.to)}`
    this.#plotBox.setAttribute('aria-label', `${this.kind.title} by ${span}. ${last.join('; ')}`)
  }

  #fillTable(): void {
    if (!this.#table.open || !this.#context) return
    const { axis } = this.#context
    const rows = this.#traces
      .filter(({ isRead }) => isRead)
      .flatMap(({ run, name, points }) =>
        evenly(points.x.length, TABLE_ROWS).map((i) => [
          run.name,
          name,
          FORMATS[axis](points.x[i]!),
          this.kind.format(points.y[i]!),
        ]),
      )
    const table = tableOf(this.kind.title, ['run', 'series', AXIS_NAMES[axis], 'value'], rows)
    this.#table.replaceChildren(
      this.#table.firstElementChild!,
      h('div', { class: 'scroll' }, table),
    )
  }
}

/** Returns how many digits it takes to distinguish the splits of an axis. */
function digitsOf(splits: readonly (number | null)[]): number {
  const known = splits.filter((split) => split !== null)
  const step = Math.abs((known[1] ?? 0) - (known[0] ?? 0))
  const greatest = Math.max(...known.map(Math.abs), 0)
  return step > 0 ? Math.max(3, Math.ceil(Math.log10(greatest / step)) + 1) : 3
}

/** Returns a run's line; with smoothing, also the raw one, drawn faint behind it. */
function linesOf(run: Run, raw: RunSeries, name: string): Trace[] {
  const stroke = colourOf(run.id)
  const isDense = raw.smooth === null && raw.x.length > MANY_POINTS
  // Dashes are invisible in a dense line, and would take most of the drawing time.
  const dash = isDense ? [] : dashesOf(run.id)
  const line = { run, hasDots: raw.x.length < 2, dash, style: { stroke } }
  const full = { ...line, width: isDense ? 1 : 1.75, isRead: true }
  if (raw.smooth === null) return [{ ...full, name, points: raw }]
  const faint = { ...line, style: { stroke: faded(stroke, 0.25) }, dash: [], width: 1 }
  return [
    { ...faint, name: `${name}, raw`, points: raw, isRead: false },
    { ...full, name: `${name}, smoothed`, points: raw.smooth },
  ]
}

function dotsOf(run: Run, { x, y }: RunSeries, name: string): Trace {
  const stroke = colourOf(run.id)
  const hasDots = x.length <= MANY_DOTS
  const points = { size: 6, stroke, fill: variable('--card'), width: 1.5 }
  const style = { stroke: faded(stroke, 0.6), points }
  const look = hasDots ? { width: 1, dash: [3, 3] } : { width: 1.5, dash: [] }
  return { run, name, points: { x, y }, style, ...look, hasDots, isRead: true }
}

function positive({ x, y }: Points): Points {
  const kept = y.map((value, i) => (value > 0 ? i : -1)).filter((i) => i >= 0)
  return { x: kept.map((i) => x[i]!), y: kept.map((i) => y[i]!) }
}

/** Returns the index of the value nearest to `wanted` in ascending `x`. */
function nearest(x: readonly number[], wanted: number): number {
  let low = 0
  let high = x.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (x[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low > 0 && wanted - x[low - 1]! < x[low]! - wanted ? low - 1 : low
}

/** Returns at most `limit` of `length` indices, evenly spread, including the first and the last. */
function evenly(length: number, limit: number): number[] {
  if (length <= limit) return Array.from({ length }, (_, i) => i)
  return Array.from({ length: limit }, (_, i) => Math.round((i * (length - 1)) / (limit - 1)))
}
