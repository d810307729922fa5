/** The rows of a report's tables; each has a cell per run. */
import { duration, percent, short, whole } from '../format'
import type { MetricsColumns } from '../runs/metrics-columns'
import type { Metric } from '../runs/series'
import type { ReportedRun } from './collect'

/** A row of a table. */
export interface Row {
  name: string
  cells: string[]
  /** Less notable than the others. */
  isFaint?: boolean
  /** The runs differ in this row. */
  differs?: boolean
  title?: string
}

type Cell = (run: ReportedRun) => string | null | undefined

/** Makes a row; none if no run has a cell. */
function row(runs: readonly ReportedRun[], name: string, cell: Cell): Row[] {
  const cells = runs.map((run) => cell(run) ?? '')
  return cells.every((text) => text === '') ? [] : [{ name, cells }]
}

const or = (value: number | null | undefined, format: (value: number) => string): string | null =>
  value === null || value === undefined ? null : format(value)

const mebibytes = (value: number): string => `${whole(value)} MiB`

/** The greatest value of a metric; null if no line has it. */
function greatest(columns: MetricsColumns, name: Metric): number | null {
  const series = columns.series(name)
  const at = series?.extremes(0, series.length).greatest ?? -1
  return at < 0 ? null : series!.y(at)
}

const four = (value: number): string => value.toFixed(4)

/** State, steps and losses. */
export function resultRows(runs: readonly ReportedRun[]): Row[] {
  return [
    ...row(runs, 'state', ({ info }) => (info.note ? `${info.state}: ${info.note}` : info.state)),
    ...row(runs, 'steps', ({ info }) =>
      info.totalSteps === null
        ? whole(info.steps)
        : `${whole(info.steps)} of ${whole(info.totalSteps)}`,
    ),
    ...row(runs, 'last training loss', ({ info }) => or(info.loss, four)),
    ...row(runs, 'last validation loss', ({ info }) => or(info.valLoss, four)),
    ...row(runs, 'perplexity', ({ info }) => or(info.valLoss, (loss) => short(Math.exp(loss), 4))),
    ...row(runs, 'bits per byte', ({ columns }) => or(columns.lastValue('bits_per_byte'), four)),
    ...row(
      runs,
      'best validation loss',
      ({ best }) => best && `${four(best.loss)} at step ${whole(best.step)}`,
    ),
    ...row(runs, 'started', ({ info }) => info.startedAt?.slice(0, 16).replace('T', ' ')),
    ...row(runs, 'folder', ({ info }) => info.path),
  ]
}

/** Parameters, tokens, FLOPs, time and utilization. */
export function accountingRows(runs: readonly ReportedRun[]): Row[] {
  const known = (
    name: string,
    cell: (accounting: NonNullable<ReportedRun['accounting']>) => string | null,
  ): Row[] => row(runs, name, ({ accounting }) => accounting && cell(accounting))
  return [
    ...known('parameters', (a) => whole(a.parameters)),
    ...known('tokens', (a) => whole(a.tokens)),
    ...known('tokens per parameter', (a) => short(a.tokensPerParameter)),
    ...known('FLOPs per token', (a) => short(a.flopsPerToken)),
    ...known('FLOPs', (a) => a.flops.toExponential(2)),
    ...known('time', (a) => or(a.elapsedS, duration)),
    ...known('mean tokens/s', (a) => or(a.meanTokensPerSecond, short)),
    ...known('mean FLOP/s', (a) => or(a.meanFlopsPerSecond, short)),
    ...known('mean MFU', (a) => or(a.mfu, percent)),
    ...row(runs, 'memory, at most', ({ columns }) =>
      or(greatest(columns, 'memory_mib'), mebibytes),
    ),
    ...row(runs, 'GPU memory, at most', ({ columns }) =>
      or(greatest(columns, 'device_memory_mib'), mebibytes),
    ),
  ]
}

/** Every option, those that differ first; faint where all runs have the default. */
export function optionRows(runs: readonly ReportedRun[]): Row[] {
  const names = [...new Set(runs.flatMap(({ options }) => options.map(({ name }) => name)))]
  const rows = names.map((name) => {
    const found = runs.map(({ options }) => options.find((option) => option.name === name))
    const cells = found.map((option) => option?.value ?? '')
    return {
      name,
      cells,
      differs: new Set(cells).size > 1,
      isFaint: found.every((option) => option?.isDefault ?? true),
      title: found.find((option) => option !== undefined)?.description ?? '',
    }
  })
  return [...rows.filter(({ differs }) => differs), ...rows.filter(({ differs }) => !differs)]
}

/** Machine, device and software. */
export function systemRows(runs: readonly ReportedRun[]): Row[] {
  const names = [...new Set(runs.flatMap(({ system }) => Object.keys(system)))]
  return names.flatMap((name) =>
    row(runs, name.replaceAll('_', ' '), ({ system }) => {
      const value = system[name]
      return value === undefined ? null : String(value)
    }),
  )
}
