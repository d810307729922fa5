/** The mean of a metric over a run. */
import type { MetricsColumns } from './metrics-columns'
import type { Metric } from './series'

/** Returns the mean of a metric over all lines that have it; null if none has. */
export function meanOf(columns: MetricsColumns, name: Metric): number | null {
  const series = columns.series(name)
  let sum = 0
  let count = 0
  for (let i = 0; i < (series?.length ?? 0); i++) {
    const y = series!.y(i)
    if (Number.isNaN(y)) continue
    sum += y
    count++
  }
  return count === 0 ? null : sum / count
}
