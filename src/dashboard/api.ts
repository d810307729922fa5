/** The data of the page, as JSON. */
import { toSnakeCase } from '../case'
import { accountingOf } from '../runs/accounting'
import { repeatCommand, shownOptions } from '../runs/command'
import { meanOf } from '../runs/mean'
import type { MetricsReader, Sample } from '../runs/metrics-reader'
import { AXES, METRICS, type Axis, type Metric } from '../runs/series'
import { readSystem } from '../runs/system'
import { thin, type Points, type Window } from '../runs/thin'
import type { Catalog, CatalogRun } from './catalog'

const MAX_RUNS = 16
const MAX_BUCKETS = 2000
const MAX_SAMPLES = 50
/**
 * Longest time that an answer waits for a long file; the page asks again while it is being read.
 */
const FIRST_ANSWER_MS = 250

/** Answers a request such as `/api/series?...`; undefined for an unknown path or run. */
export async function answer(catalog: Catalog, url: URL): Promise<unknown> {
  switch (url.pathname) {
    case '/api/runs':
      return snapshot(catalog)
    case '/api/run':
      return details(catalog, url.searchParams)
    case '/api/series':
      return series(catalog, url.searchParams)
    case '/api/samples':
      return samples(catalog, url.searchParams)
  }
  return undefined
}

/** All runs with their states and last values. */
export function snapshot(catalog: Catalog): object {
  const runs = catalog.runs.map(({ id, info }) => {
    const reader = catalog.reader(id)
    const columns = reader?.columns
    const last = (name: Metric): number | null => columns?.lastValue(name) ?? null
    const values = reader?.isComplete && {
      loss: last('loss'),
      val_loss: last('val_loss'),
      tokens_per_second: last('tokens_per_second'),
      mfu: last('mfu'),
      lr: last('lr'),
      grad_norm: last('grad_norm'),
      memory_mib: last('memory_mib'),
      lines: columns!.length,
      damaged_lines: reader.damagedLines,
      metrics: columns!.metrics,
      num_samples: reader.numSamples,
    }
    const version = reader ? `${reader.generation}.${columns!.length}.${reader.isComplete}` : ''
    return { id, ...toSnakeCase(info), ...values, version }
  })
  return { runs, places: catalog.places }
}

/** Configuration, system and accounting of a run. */
async function details(catalog: Catalog, query: URLSearchParams): Promise<object | undefined> {
  const run = runsOf(catalog, query)[0]
  if (!run) return undefined
  const { config, info, id } = run
  const columns = catalog.reader(id)?.columns
  const mfu = columns ? meanOf(columns, 'mfu') : null
  return {
    id,
    options: config ? shownOptions(config) : [],
    command: config ? repeatCommand(config) : null,
    accounting: config ? toSnakeCase(accountingOf(config, info, mfu)) : null,
    system: readSystem(info.path),
  }
}

interface RunSeries extends Points {
  id: number
  smooth: Points | null
}

/** Points of several metrics and runs in a window, thinned. */
async function series(catalog: Catalog, query: URLSearchParams): Promise<object> {
  const axis = AXES.find((name) => name === query.get('axis')) ?? 'step'
  const wanted = (query.get('metrics') ?? '').split(',')
  const metrics = METRICS.filter((name) => wanted.includes(name))
  const buckets = Math.min(MAX_BUCKETS, Math.max(10, number(query, 'buckets') ?? 400))
  const smoothing = Math.min(1, Math.max(0, number(query, 'smoothing') ?? 0))
  const runs = runsOf(catalog, query)
  const readers = runs.map((run) => catalog.open(run))
  // While a page is open, the server polls these files and the page asks again when they change.
  const stale = readers.filter((reader) => !reader.isComplete || !catalog.isFollowed)
  if (stale.length > 0) {
    const read = Promise.all(stale.map((reader) => reader.poll()))
    await Promise.race([read, new Promise((resolve) => setTimeout(resolve, FIRST_ANSWER_MS))])
  }
  const range = rangeOf(readers, axis)
  const window = { from: number(query, 'from') ?? range.from, to: number(query, 'to') ?? range.to }
  // The extremes of a single run keep their exact x; see `thin`.
  const isOnGrid = runs.length > 1
  const values: Partial<Record<Metric, RunSeries[]>> = {}
  for (const name of metrics) {
    values[name] = runs.flatMap(({ id }, i) => {
      const { columns } = readers[i]!
      const raw = columns.series(name)
      if (raw === null) return []
      const points = thin(raw, axis, window, buckets, isOnGrid)
      if (smoothing === 0) return { id, ...points, smooth: null }
      return {
        id,
        ...points,
        smooth: thin(columns.smoothed(name, smoothing)!, axis, window, buckets, isOnGrid),
      }
    })
  }
  const isComplete = readers.every((reader) => reader.isComplete)
  const lines = readers.reduce((sum, { columns }) => sum + columns.length, 0)
  return { axis, range, window, is_complete: isComplete, lines, series: values }
}

function rangeOf(readers: readonly MetricsReader[], axis: Axis): Window {
  const known = readers.filter(({ columns }) => columns.length > 0)
  if (known.length === 0) return { from: 0, to: 1 }
  return {
    from: Math.min(...known.map(({ columns }) => columns.first(axis))),
    to: Math.max(...known.map(({ columns }) => columns.last(axis))),
  }
}

async function samples(catalog: Catalog, query: URLSearchParams): Promise<object | undefined> {
  const run = runsOf(catalog, query)[0]
  if (!run) return undefined
  const limit = Math.min(MAX_SAMPLES, Math.max(1, number(query, 'limit') ?? 10))
  const before = number(query, 'before') ?? Infinity
  const found: Sample[] = await catalog.open(run).samples(limit, before)
  return { id: run.id, samples: found }
}

function runsOf(catalog: Catalog, query: URLSearchParams): CatalogRun[] {
  const ids = (query.get('ids') ?? '').split(',').filter((id) => id !== '')
  return ids
    .slice(0, MAX_RUNS)
    .map((id) => catalog.find(Number(id)))
    .filter((run) => run !== undefined)
}

/** Returns a number from the query; null if it is absent or not a number. */
function number(query: URLSearchParams, name: string): number | null {
  const text = query.get(name)
  const value = text === null || text === '' ? NaN : Number(text)
  return Number.isFinite(value) ? value : null
}
