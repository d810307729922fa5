/** `kindling train`: trains a model, or resumes a run. */
import { Command } from 'commander'
import { z } from 'zod'
import type { ResolvedOptions } from '../../training/config'
import { dryRun } from '../../training/dry-run'
import { inGroup, trainFields } from '../../training/fields'
import { resolveOptions } from '../../training/resolve-options'
import { Trainer } from '../../training/trainer'
import { addExamples } from '../examples'
import { addFields, jsonSchemaOf } from '../flags'
import { withInterrupt } from '../interrupt'
import { logRun, preparationReport } from '../logger'
import { EXIT } from '../exit'
import { START_INDENT, nextCommand, startText, summaryText } from '../run-text'
import { startWarnings } from '../run-warnings'
import { argumentsOr, run, type Output } from '../output'
import { printWrites } from '../shared-flags'
import { outliveOutput, write } from '../streams'
import { columnsOf, wrap } from '../terminal'
import { dashboardFlag, withDashboard } from '../train-dashboard'

const EXAMPLES = [
  'kindling train book.txt --preset char --max-steps 1000 --run runs/book',
  'kindling train a.txt b.txt web --preset char --max-steps 500',
  'kindling train --data data/stories --d-model 256 --num-layers 4 --batch-size 16',
  'kindling train --run runs/book --resume',
  'kindling train --checkpoint runs/book/checkpoints/step-00000500',
  'kindling train --config run.json --lr 3e-4',
  'kindling train book.txt --preset char --run runs/seen --dashboard',
  'kindling train --corpus book.txt --preset char --dry-run',
  'kindling train --config-schema',
]

const configFlags = inGroup('Run', {
  config: z
    .string()
    .optional()
    .describe('JSON file of options; its keys are flag names in snake_case')
    .meta({ value: 'file', common: true }),
  config_schema: z
    .boolean()
    .default(false)
    .describe('print the JSON Schema of the config file and exit'),
})

const dryRunFlag = inGroup('Run', {
  dry_run: z
    .boolean()
    .default(false)
    .describe('print what would be trained and written, then exit')
    .meta({ common: true }),
})

export function trainCommand(): Command {
  const command = new Command('train').description('train a model, or resume a run')
  command.argument('[file...]', 'text to train on, same as --corpus: files, patterns or folders')
  addFields(
    command,
    { ...trainFields, ...configFlags, ...dryRunFlag, ...dashboardFlag },
    { hideRest: true },
  )
  addExamples(command, EXAMPLES)
  return command.action(
    run(async ({ config, config_schema, dry_run, dashboard, ...flags }, output, files) => {
      if (config_schema === true) {
        write(process.stdout, `${JSON.stringify(jsonSchemaOf(trainFields), null, 2)}\n`)
        return
      }
      const corpus = argumentsOr(files, flags['corpus'], '--corpus')
      const options = resolveOptions({ ...flags, corpus }, config as string | undefined)
      if (dry_run === true) return printDryRun(options, output)
      outliveOutput()
      const trainer = new Trainer(options)
      logRun(trainer, output)
      let stopping = 'stopping before the first step'
      trainer.once('start', ({ options }) => {
        const state = options.accumulate > 1 ? 'of the last whole step' : 'after this step'
        stopping = `saving a checkpoint ${state}`
      })
      const summary = await withInterrupt(
        (signal) =>
          withDashboard(trainer, output, dashboard === true, () => trainer.run({ signal })),
        () => stopping,
      )
      const { steps, loss, valLoss, run: folder } = summary
      output.line({ steps, loss, valLoss, run: folder })
      output.text(summaryText(summary))
      output.note(nextCommand(summary))
      if (summary.interrupted) process.exitCode = EXIT.interrupted
    }),
  )
}

/** Prints the plan of a run. */
async function printDryRun(options: ResolvedOptions, output: Output): Promise<void> {
  const plan = await withInterrupt((signal) =>
    dryRun(options, { ...preparationReport(output), signal }),
  )
  const { config, ...numbers } = plan
  output.line({ dryRun: true, ...numbers, options: config.options })
  const columns = columnsOf(process.stdout)
  for (const line of startText(config, plan.params)) output.text(wrap(line, columns, START_INDENT))
  if (plan.fromStep > 0) output.text(`resume   from step ${plan.fromStep}`)
  for (const warning of startWarnings(config, plan.params)) output.note(`warning: ${warning}`)
  printWrites(output, plan.writes)
}
