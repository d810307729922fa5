/** `kindling train --dashboard`: serves the page of a run while it trains. */
import { z } from 'zod'
import { openBrowser } from '../dashboard/open-browser'
import { startDashboard, type Dashboard } from '../dashboard/server'
import { fromNative } from '../errors'
import { inGroup } from '../training/fields'
import type { Trainer } from '../training/trainer'
import type { Output } from './output'

export const dashboardFlag = inGroup('Run', {
  dashboard: z
    .boolean()
    .default(false)
    .describe('show the run in a local web page while it trains')
    .meta({ common: true }),
})

/**
 * Runs `work`, and shows the page of the run meanwhile if wanted. A failure of the page does not
 * end the run.
 */
export async function withDashboard<T>(
  trainer: Trainer,
  output: Output,
  isWanted: boolean,
  work: () => Promise<T>,
): Promise<T> {
  if (!isWanted) return work()
  let opening: Promise<Dashboard | null> | undefined
  trainer.once('start', (_config, _numParameters, run) => {
    opening = open(run, output)
  })
  try {
    return await work()
  } finally {
    await (await opening)?.close()
  }
}

async function open(run: string, output: Output): Promise<Dashboard | null> {
  try {
    const dashboard = await startDashboard([run])
    output.clear()
    output.note(`dashboard: ${dashboard.url}`)
    openBrowser(dashboard.url)
    return dashboard
  } catch (error) {
    const { code, message } = fromNative(error)
    output.note(`no dashboard: ${code}: ${message}`)
    return null
  }
}
