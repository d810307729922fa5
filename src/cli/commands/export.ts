/** `kindling export`: writes a trained model for other programs. */
import { Command } from 'commander'
import { z } from 'zod'
import { EXPORT_DTYPES, EXPORT_FORMATS, exportModel } from '../../exchange/export-model'
import { modelCard } from '../../runs/model-card'
import { parse } from '../../training/config'
import { load } from '../../training/model-source'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { run } from '../output'
import { withElapsed } from '../progress'

const fields = {
  format: z
    .enum(EXPORT_FORMATS)
    .default('hf')
    .describe(
      'hf: a folder for transformers and vLLM; gguf: a file for llama.cpp; ' +
        'safetensors: a file with the names of checkpoints',
    ),
  dtype: z
    .enum(EXPORT_DTYPES)
    .default('f32')
    .describe('element type of the tensors; q8_0 in GGUF only'),
  out: z.string().meta({ value: 'path' }).describe('new folder (hf), or file (gguf, safetensors)'),
}

const EXAMPLES = [
  'kindling export runs/book --out models/book',
  'kindling export runs/book --format gguf --dtype f16 --out book.gguf',
  'kindling export runs/book/checkpoints/step-00000500 --format safetensors --out book.safetensors',
]

export function exportCommand(): Command {
  const command = new Command('export').description('write a trained model for other programs')
  command.argument('<source>', 'run, or RUN/checkpoints/step-...')
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output, [source]) => {
      const { format, dtype, out } = parse(z.strictObject(fields), flags)
      const loaded = await withElapsed(`reading ${source!}`, output, () =>
        load(source!, { onMessage: (text) => output.note(text) }),
      )
      const card = format === 'hf' ? { 'README.md': await modelCard(source!, loaded) } : {}
      const companions = { ...loaded.companions, ...card }
      await withElapsed(`writing ${out}`, output, () =>
        exportModel(out, { ...loaded, companions }, { format, dtype }),
      )
      output.line({ format, dtype, step: loaded.step, out })
      output.text(`step ${loaded.step}, ${dtype}: ${out}`)
    }),
  )
}
