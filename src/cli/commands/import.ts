/** `kindling import`: makes a run of a model of another program. */
import { Command } from 'commander'
import { z } from 'zod'
import { limits } from '../../limits'
import { parse } from '../../training/config'
import { load } from '../../training/model-source'
import { save } from '../../training/save-model'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { count } from '../../format'
import { run } from '../output'
import { withElapsed } from '../progress'

const fields = {
  out: z.string().meta({ value: 'dir' }).describe('run folder to create'),
  dtype: z
    .enum(['f32', 'bf16'])
    .optional()
    .describe('precision of the matrix multiplications of the run (default: f32)'),
  num_heads: limits.width
    .optional()
    .describe('attention heads; a checkpoint with the names of the course does not say'),
  max_seq_length: limits.positions
    .optional()
    .describe(
      'longest context of such a checkpoint (default: that of its rotary tables, else 512)',
    ),
  theta: z
    .number()
    .positive()
    .optional()
    .describe('base of the rotary angles of such a checkpoint (default: 100000)'),
}

const EXAMPLES = [
  'kindling import models/SmolLM2-135M --out runs/smollm2',
  'kindling import smollm2.gguf --out runs/smollm2-gguf',
  'kindling import checkpoint.pt --num-heads 4 --out runs/course',
]
const NOTES = `SOURCE is a folder of Hugging Face (config.json, safetensors, tokenizer.json), a GGUF file,
a checkpoint of PyTorch or safetensors with the names of the course, or hf:org/name where the
package @huggingface/hub is installed. Architectures: llama, mistral, qwen2, qwen3.`

export function importCommand(): Command {
  const command = new Command('import').description('make a run of a model of another program')
  command.argument('<source>', 'folder, file, or hf:org/name')
  addFields(command, fields)
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action(
    run(async (flags, output, [source]) => {
      const options = parse(z.strictObject(fields), flags)
      const loaded = await withElapsed(`reading ${source!}`, output, () =>
        load(source!, {
          ...(options.num_heads !== undefined && { numHeads: options.num_heads }),
          ...(options.max_seq_length !== undefined && { maxSeqLength: options.max_seq_length }),
          ...(options.theta !== undefined && { theta: options.theta }),
          onMessage: (text) => output.note(text),
        }),
      )
      const { model, config, tokenizer } = loaded
      const dtype = options.dtype ?? config.options.dtype
      await withElapsed(`writing ${options.out}`, output, () =>
        save(options.out, {
          ...loaded,
          config: { ...config, options: { ...config.options, dtype } },
        }),
      )
      const { vocabSize, maxSeqLength } = config.options
      output.line({ params: model.numParameters, vocabSize, maxSeqLength, out: options.out })
      output.text(`${count(model.numParameters)} parameters, ${vocabSize} tokens: ${options.out}`)
      if (!tokenizer) output.note('the model has no tokenizer')
    }),
  )
}
