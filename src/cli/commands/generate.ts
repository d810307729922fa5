/** `kindling generate`: prints text from a trained model as it is decoded. */
import { Command } from 'commander'
import { z } from 'zod'
import { KindlingError } from '../../errors'
import { generate, generateBatch, type GenerateResult } from '../../generate'
import { END_OF_TEXT } from '../../tokenizer'
import { parse } from '../../training/config'
import { startPrompt } from '../../training/document-start'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { samplingFields, samplingOptions } from '../sampling-flags'
import { SOURCE_ARGUMENT, checkpointFields, loadModel } from '../shared-flags'
import { argumentsOr, run, type Output } from '../output'

const fields = {
  ...checkpointFields,
  prompt: z
    .array(z.string())
    .meta({ repeat: true })
    .default([''])
    .describe('text to continue; repeat the flag for a batch (default: start a new document)'),
  ...samplingFields,
  echo: z.boolean().default(true).describe('leave the prompt out of the output'),
}

const EXAMPLES = [
  'kindling generate runs/book "It was" --temperature 0.8',
  'kindling generate runs/book "He said" "She said" --max-tokens 50 --json',
  'kindling generate --checkpoint runs/book/checkpoints/step-00000500 --prompt "It was"',
]

export function generateCommand(): Command {
  const command = new Command('generate').description('generate text with a trained model')
  command.argument(...SOURCE_ARGUMENT)
  command.argument(
    '[prompt...]',
    'text to continue, same as --prompt; several prompts form a batch',
  )
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output, [source, ...prompts]) => {
      const prompt = argumentsOr(prompts, flags['prompt'], '--prompt')
      const options = parse(z.strictObject(fields), { ...flags, prompt })
      const { model, tokenizer, config, stopIds } = await loadModel(source, options, (text) =>
        output.note(text),
      )
      if (!tokenizer) {
        throw new KindlingError(
          'ERR_NOT_FOUND',
          'the model has no tokenizer, and generating text needs one; train with a tokenizer',
        )
      }
      const start = startPrompt(tokenizer, config.endOfText)
      const promptTexts = options.prompt.map((text) => text || start)
      if (start !== '' && options.prompt.includes('')) {
        output.note(`the model has not seen ${END_OF_TEXT}: the text starts from a line break`)
      }
      await withInterrupt(async (signal) => {
        const settings = { ...samplingOptions(options), echo: options.echo, stopIds, signal }
        const started = performance.now()
        const results =
          promptTexts.length === 1 && !output.json
            ? [await stream(generate(model, tokenizer, promptTexts[0]!, settings), output)]
            : await generateBatch(model, tokenizer, promptTexts, settings)
        report(results, (performance.now() - started) / 1000, output)
      })
    }),
  )
}

/** Prints a text piece by piece. */
async function stream(
  pieces: AsyncGenerator<string, GenerateResult, void>,
  output: Output,
): Promise<GenerateResult> {
  for (;;) {
    const next = await pieces.next()
    if (next.done) {
      output.write('\n')
      return next.value
    }
    output.write(next.value)
  }
}

/** Prints the texts of a batch, or JSON lines, and the speed. */
function report(results: readonly GenerateResult[], seconds: number, output: Output): void {
  const tokens = results.reduce((sum, result) => sum + result.ids.length, 0)
  const tokensPerSecond = Number((tokens / seconds).toFixed(1))
  for (const [row, { prompt, text, ids, stopReason, seed }] of results.entries()) {
    if (results.length > 1) output.text(`${row === 0 ? '' : '\n'}--- ${row + 1}\n${text}`)
    output.line({ prompt, text, ids: [...ids], stopReason, tokensPerSecond, seed })
  }
  if (!output.json) output.note(`seed ${results[0]!.seed}, ${tokensPerSecond} tokens/s`)
}
