/** `kindling train`: trains a model, or resumes a run. */
import { Command } from 'commander'
import { z } from 'zod'
import { inGroup, trainFields } from '../../training/fields'
import { resolveOptions } from '../../training/resolve-options'
import { Trainer } from '../../training/trainer'
import { addExamples } from '../examples'
import { addFields, jsonSchemaOf } from '../flags'
import { withInterrupt } from '../interrupt'
import { logRun } from '../logger'
import { EXIT } from '../exit'
import { nextCommand, summaryText } from '../run-text'
import { argumentsOr, run } from '../output'
import { outliveOutput, write } from '../streams'
import { dashboardFlag, withDashboard } from '../train-dashboard'

const EXAMPLES = [
  'kindling train book.txt --preset char --max-steps 1000 --run runs/book',
  'kindling train a.txt b.txt web --preset char --max-steps 500',
  'kindling train --data data/stories --d-model 256 --num-layers 4 --batch-size 16',
  'kindling train --run runs/book --resume',
  'kindling train --checkpoint runs/book/checkpoints/step-00000500',
  'kindling train --config run.json --lr 3e-4',
  'kindling train book.txt --preset char --run runs/seen --dashboard',
  'kindling train --config-schema',
]

const configFlags = inGroup('Run', {
  config: z
    .string()
    .optional()
    .describe('JSON file of options, by the names of the flags in snake_case')
    .meta({ value: 'file', common: true }),
  config_schema: z
    .boolean()
    .default(false)
    .describe('print the JSON Schema of the config file and exit'),
})

export function trainCommand(): Command {
  const command = new Command('train').description('train a model, or resume a run')
  command.argument('[file...]', 'text to train on, as --corpus: files, patterns or folders')
  addFields(command, { ...trainFields, ...configFlags, ...dashboardFlag }, { hideRest: true })
  addExamples(command, EXAMPLES)
  return command.action(
    run(async ({ config, config_schema, dashboard, ...flags }, output, files) => {
      if (config_schema === true) {
        write(process.stdout, `${JSON.stringify(jsonSchemaOf(trainFields), null, 2)}\n`)
        return
      }
      outliveOutput()
      const corpus = argumentsOr(files, flags['corpus'], '--corpus')
      const trainer = new Trainer(
        resolveOptions({ ...flags, corpus }, config as string | undefined),
      )
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
