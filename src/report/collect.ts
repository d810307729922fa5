/** Collects everything that a report says about a run. */
import { join } from 'node:path'
import { KindlingError } from '../errors'
import { accountingOf, type RunAccounting } from '../runs/accounting'
import { repeatCommand, shownOptions, type ShownOption } from '../runs/command'
import { isRunFolder } from '../runs/find'
import { inspectRun, type RunInfo } from '../runs/inspect'
import { meanOf } from '../runs/mean'
import { MetricsReader, type Sample } from '../runs/metrics-reader'
import type { MetricsColumns } from '../runs/metrics-columns'
import { readSystem } from '../runs/system'

/** Number of newest samples that a report shows per run. */
const SAMPLES = 5

/** A run of a report. */
export interface ReportedRun {
  info: RunInfo
  columns: MetricsColumns
  /** The lowest validation loss and its step; null without evaluations. */
  best: { loss: number; step: number } | null
  samples: Sample[]
  options: ShownOption[]
  command: string | null
  accounting: RunAccounting | null
  system: Record<string, string | number>
}

/**
 * Reads a run.
 *
 * @throws KindlingError `ERR_NOT_FOUND` if the folder is not a run.
 */
export async function collectRun(path: string): Promise<ReportedRun> {
  if (!isRunFolder(path)) {
    throw new KindlingError('ERR_NOT_FOUND', `${path} is not a run folder; see kindling runs`)
  }
  const { info, config } = await inspectRun(path)
  const reader = new MetricsReader(join(path, 'metrics.jsonl'))
  await reader.poll()
  const { columns } = reader
  return {
    info,
    columns,
    best: bestOf(columns),
    samples: await reader.samples(SAMPLES),
    options: config ? shownOptions(config) : [],
    command: config ? repeatCommand(config) : null,
    accounting: config ? accountingOf(config, info, meanOf(columns, 'mfu')) : null,
    system: readSystem(path),
  }
}

function bestOf(columns: MetricsColumns): ReportedRun['best'] {
  const series = columns.series('val_loss')
  const at = series?.extremes(0, series.length).least ?? -1
  return at < 0 ? null : { loss: series!.y(at), step: series!.x('step', at) }
}
