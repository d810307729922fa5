/** `kindling dashboard`: serves a page with live charts of runs. */
import { existsSync } from 'node:fs'
import { Command } from 'commander'
import { z } from 'zod'
import { openBrowser } from '../../dashboard/open-browser'
import { startDashboard } from '../../dashboard/server'
import { KindlingError } from '../../errors'
import { parse } from '../../training/config'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { run } from '../output'

const DEFAULT_FOLDER = 'runs'

export const dashboardFields = {
  port: z.int().min(0).max(65_535).default(0).describe('port of the page (default: a free one)'),
  open: z.boolean().default(true).describe('print the URL without opening a browser'),
}

const EXAMPLES = ['kindling dashboard', 'kindling dashboard runs/book --no-open']

export function dashboardCommand(): Command {
  const command = new Command('dashboard')
    .description('show runs live in a local web page')
    .argument('[run...]', `run folders, or folders of runs (default: ${DEFAULT_FOLDER})`)
  addFields(command, dashboardFields)
  addExamples(command, EXAMPLES, {
    notes:
      'Only this machine can reach the page, and only with its full URL. Ctrl-C stops the server.',
  })
  return command.action(
    run(async (flags, output, args) => {
      const { port, open } = parse(z.strictObject(dashboardFields), flags)
      for (const place of args) {
        if (!existsSync(place)) {
          throw new KindlingError('ERR_NOT_FOUND', `${place} does not exist; check the path`)
        }
      }
      // Before the URL is shown: whoever reads it may end the command at once.
      const ended = interrupted()
      const dashboard = await startDashboard(args.length > 0 ? args : [DEFAULT_FOLDER], port)
      output.line({ url: dashboard.url })
      output.text(`dashboard: ${dashboard.url}`)
      if (open) openBrowser(dashboard.url)
      await ended
      await dashboard.close()
    }),
  )
}

/**
 * Waits for Ctrl-C, a request to terminate, or the terminal to close, any of which ends the
 * command.
 */
function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => resolve())
  })
}
