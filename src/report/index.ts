/** Reports of runs and of sweeps: one self-contained HTML file. */
import { collectRun, type ReportedRun } from './collect'
import { reportPage } from './page'
import { sweepLead } from './sweep'
import type { SweepResult } from '../sweep/state'
import { writeFileAtomic } from '../files'

/**
 * Writes the report of runs to a file, whole or not at all.
 *
 * @throws KindlingError `ERR_NOT_FOUND` if a folder is not a run, `ERR_NOT_WRITABLE`.
 */
export async function writeReport(paths: readonly string[], out: string): Promise<void> {
  const runs: ReportedRun[] = []
  for (const path of paths) runs.push(await collectRun(path))
  await writeFileAtomic(out, reportPage(runs, new Date()))
}

/**
 * Writes the picture of a learning-rate sweep and the report of its runs to a file, whole or not at
 * all.
 *
 * @throws KindlingError `ERR_NOT_WRITABLE`.
 */
export async function writeSweepReport(
  results: readonly SweepResult[],
  out: string,
): Promise<void> {
  const runs: ReportedRun[] = []
  for (const { run } of results) runs.push(await collectRun(run))
  await writeFileAtomic(out, reportPage(runs, new Date(), sweepLead(results, runs)))
}
