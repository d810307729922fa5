/** `kindling report`: one HTML file about one or several runs. */
import { join } from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { writeReport } from '../../report'
import { parse } from '../../training/config'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { run } from '../output'

const fields = {
  out: z
    .string()
    .optional()
    .describe('file to write (default: report.html in the first run)')
    .meta({ value: 'file' }),
}

const EXAMPLES = [
  'kindling report runs/book',
  'kindling report runs/book runs/second --out comparison.html',
]

export function reportCommand(): Command {
  const command = new Command('report')
    .description('write a self-contained HTML report of one or several runs')
    .argument('<run...>', 'run folders')
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output, runs) => {
      const { out = join(runs[0]!, 'report.html') } = parse(z.strictObject(fields), flags)
      await writeReport(runs, out)
      output.line({ out })
      output.text(`wrote ${out}`)
    }),
  )
}
