/**
 * The page of the dashboard. The server streams the states of all runs; whenever a run that is shown
 * has changed, the page requests the points of its window, thinned to the width of the charts.
 */
import { Chart, type ChartKind } from './chart.js'
import { setUpTheme } from './colours.js'
import { get, type Axis, type Run, type SeriesAnswer, type Snapshot, type Window } from './data.js'
import { DetailsView } from './details.js'
import { byId, h } from './dom.js'
import { count, mebibytes, percent, tick, value } from './format.js'
import { RunsList } from './runs-list.js'
import { SamplesView } from './samples.js'
import { showSummary } from './summary.js'

const KINDS: ChartKind[] = [
  {
    metric: 'loss',
    title: 'Loss',
    unit: 'nats per token; dots: validation',
    format: value,
    tick,
    log: true,
    points: { metric: 'val_loss', name: 'Validation loss' },
  },
  {
    metric: 'val_loss',
    title: 'Validation loss',
    unit: 'nats per token',
    format: value,
    tick,
    log: true,
  },
  { metric: 'lr', title: 'Learning rate', unit: '', format: value, tick, log: true },
  {
    metric: 'grad_norm',
    title: 'Gradient norm',
    unit: 'before clipping',
    format: value,
    tick,
    log: true,
  },
  { metric: 'tokens_per_second', title: 'Speed', unit: 'tokens/s', format: count },
  { metric: 'mfu', title: 'MFU', unit: 'share of the peak', format: percent },
  { metric: 'memory_mib', title: 'Memory', unit: 'of the process', format: mebibytes },
  { metric: 'device_memory_mib', title: 'GPU memory', unit: 'peak', format: mebibytes },
]
const METRICS = KINDS.map(({ metric }) => metric).join()
/** Milliseconds between two requests while a long file is being read. */
const READING_MS = 300
/** More runs than this are drawn with fewer points each, and move only when their points arrive. */
const FEW_RUNS = 3

let snapshot: Snapshot = { runs: [], places: [] }
let zoom: Window | null = null
let drawnVersions = ''
let isRequesting = false
let isStale = false
let isZooming = false

const input = (id: string): HTMLInputElement => byId<HTMLInputElement>(id)
const charts = KINDS.map(
  (kind) =>
    new Chart(kind, {
      zoom: (window) => zoomTo(window),
      reset: () => zoomTo(null),
      say: (text) => (byId('readout').textContent = text),
    }),
)
const list = new RunsList(() => update(true))
const details = new DetailsView()
const samples = new SamplesView()
let last: SeriesAnswer | null = null
const loading = h('p', { class: 'empty', role: 'status' }, 'Reading the metrics')

function axis(): Axis {
  const checked = document.querySelector<HTMLInputElement>('input[name=axis]:checked')
  return (checked?.value as Axis | undefined) ?? 'step'
}

function shown(): Run[] {
  return list.selected(snapshot.runs)
}

/** Zooms all charts. Few runs move immediately, and their new points follow. */
function zoomTo(window: Window | null): void {
  performance.mark('zoom-start')
  zoom = window
  isZooming = true
  input('reset').disabled = window === null
  if (last && shown().length <= FEW_RUNS) draw({ ...last, window: window ?? last.range })
  request()
}

/** Requests the points of all charts; one request at a time. */
function request(): void {
  if (isRequesting) {
    isStale = true
    return
  }
  isRequesting = true
  void load().finally(() => {
    isRequesting = false
    if (isStale) {
      isStale = false
      request()
    }
  })
}

async function load(): Promise<void> {
  const runs = shown()
  const isZoom = isZooming
  isZooming = false
  const width = Math.max(...charts.map((chart) => chart.width))
  const answer = await get<SeriesAnswer>('series', {
    ids: runs.map(({ id }) => id).join(),
    axis: axis(),
    metrics: METRICS,
    buckets: String(
      Math.round(Math.min(700, Math.max(150, width / (runs.length > FEW_RUNS ? 2.5 : 1.5)))),
    ),
    smoothing: input('smoothing').value,
    ...(zoom && { from: String(zoom.from), to: String(zoom.to) }),
  })
  if (!answer) return
  if (answer.axis === axis()) draw(answer)
  if (isZoom) performance.measure('zoom', 'zoom-start')
  if (!answer.is_complete) setTimeout(() => request(), READING_MS)
}

function draw(answer: SeriesAnswer, afresh = false): void {
  last = answer
  const context = {
    runs: shown(),
    axis: answer.axis,
    window: answer.window,
    log: input('log').checked,
    series: answer.series,
  }
  for (const chart of charts) chart.draw(context, afresh)
  const isEmpty = charts.every((chart) => chart.element.hidden)
  loading.textContent = answer.is_complete ? 'No metrics yet.' : 'Reading the metrics …'
  loading.hidden = !isEmpty || context.runs.length === 0
  if (!isEmpty && performance.getEntriesByName('first-chart').length === 0) {
    performance.mark('first-chart')
  }
}

/** Shows a new snapshot, and requests points if a run that is shown has changed. */
function update(isForced = false): void {
  list.update(snapshot.runs)
  const runs = shown()
  byId('charts-section').hidden = runs.length === 0
  showSummary(runs, snapshot.places, snapshot.runs.length)
  void details.update(runs)
  void samples.update(runs)
  const versions = JSON.stringify(runs.map(({ id, version }) => [id, version]))
  if (isForced || versions !== drawnVersions) request()
  drawnVersions = versions
  const running = snapshot.runs.filter(({ state }) => state === 'running').length
  document.title = running > 0 ? `● ${running} running · Kindling` : 'Kindling'
}

function connect(): void {
  const status = byId('connection')
  const events = new EventSource('api/events')
  events.addEventListener('open', () => {
    status.textContent = 'live'
    status.className = 'live'
  })
  events.addEventListener('message', (event) => {
    snapshot = JSON.parse(event.data as string) as Snapshot
    update()
  })
  events.addEventListener('error', () => {
    status.textContent = 'the server is gone; what you see is its last state'
    status.className = 'gone'
  })
}

function setUpControls(): void {
  byId('charts').append(loading, ...charts.map(({ element }) => element))
  loading.hidden = true
  for (const radio of document.querySelectorAll('input[name=axis]')) {
    radio.addEventListener('change', () => zoomTo(null))
  }
  input('smoothing').addEventListener('input', () => {
    byId('smoothing-value').textContent = Number(input('smoothing').value).toFixed(2)
    request()
  })
  input('log').addEventListener('change', () => last && draw(last))
  input('reset').addEventListener('click', () => zoomTo(null))
  setUpTheme(byId('theme'), () => last && draw(last, true))
  if (matchMedia('(max-width: 760px)').matches) byId('runs-box').removeAttribute('open')
  let resized: ReturnType<typeof setTimeout>
  addEventListener('resize', () => {
    clearTimeout(resized)
    resized = setTimeout(() => request(), 200)
  })
}

setUpControls()
connect()
