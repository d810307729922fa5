/** `kindling chat`: a conversation with a model in the terminal. */
import { createInterface } from 'node:readline'
import { Command } from 'commander'
import { z } from 'zod'
import { KindlingError } from '../../errors'
import { ChatTemplate, type ChatMessage } from '../../exchange/chat-template'
import { generate, type GenerateOptions, type GenerateResult } from '../../generate'
import type { Tokenizer } from '../../tokenizer'
import { parse } from '../../training/config'
import type { LoadedModel } from '../../training/model-source'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, type Output } from '../output'
import { samplingFields, samplingOptions } from '../sampling-flags'
import { SOURCE_ARGUMENT, checkpointFields, loadModel } from '../shared-flags'

const fields = {
  ...checkpointFields,
  system: z.string().min(1).optional().describe('system message: how the model should behave'),
  ...samplingFields,
}

const EXAMPLES = [
  'kindling chat runs/smollm2',
  'kindling chat runs/smollm2 --system "Answer in one sentence." --temperature 0.2',
  'echo "What is a whale?" | kindling chat runs/smollm2 --max-tokens 50 --json',
]
const NOTES =
  'Each line of standard input is a message. Ctrl-C stops an answer, Ctrl-D ends the conversation. ' +
  "Messages are formatted with the model's chat template, or as ChatML if there is none and the " +
  'tokenizer has <|im_start|> and <|im_end|>. When the context is full, the oldest turns are dropped.'

export function chatCommand(): Command {
  const command = new Command('chat').description('talk with a model in the terminal')
  command.argument(...SOURCE_ARGUMENT)
  addFields(command, fields)
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action(
    run(async (flags, output, [source]) => {
      const options = parse(z.strictObject(fields), flags)
      const loaded = await loadModel(source, options, (text) => output.note(text))
      const chat = new Conversation(loaded, options.system, samplingOptions(options))
      const lines = createInterface({ input: process.stdin, terminal: false })
      const isPrompted = process.stdin.isTTY && !output.json && !output.quiet
      const ask = (): void => void (isPrompted && process.stderr.write('> '))
      ask()
      for await (const line of lines) {
        if (line.trim() !== '') await answer(chat, line, output)
        ask()
      }
    }),
  )
}

/** Prints the answer to a message. An interrupt ends the answer, not the conversation. */
async function answer(chat: Conversation, message: string, output: Output): Promise<void> {
  const started = performance.now()
  const result = await withInterrupt(
    (signal) => chat.answer(message, signal, (piece) => output.write(piece)),
    'stopping this answer',
  )
  output.write('\n')
  if (result === null) return
  const { ids, seed, stopReason, text } = result
  const seconds = (performance.now() - started) / 1000
  const tokensPerSecond = Number((ids.length / seconds).toFixed(1))
  output.line({ message, text, ids: [...ids], stopReason, tokensPerSecond, seed })
}

/** A conversation with a model: its turns so far, and how to continue them. */
class Conversation {
  readonly #model: LoadedModel['model']
  readonly #tokenizer: Tokenizer
  readonly #template: ChatTemplate
  readonly #options: GenerateOptions
  readonly #system: ChatMessage[]
  readonly #context: number
  #turns: ChatMessage[] = []

  constructor(
    loaded: Pick<LoadedModel, 'model' | 'tokenizer' | 'config' | 'companions' | 'stopIds'>,
    system: string | undefined,
    options: GenerateOptions,
  ) {
    const { model, tokenizer, config } = loaded
    if (!tokenizer) {
      throw new KindlingError(
        'ERR_NOT_FOUND',
        'the model has no tokenizer, and chatting needs one; train with a tokenizer',
      )
    }
    this.#model = model
    this.#tokenizer = tokenizer
    this.#template = new ChatTemplate(loaded)
    this.#options = options
    this.#system = system === undefined ? [] : [{ role: 'system', content: system }]
    this.#context = config.options.maxSeqLength
  }

  /**
   * Adds a message and the answer to it.
   *
   * @returns null if `signal` ended the answer; the part generated until then stays in the
   * conversation.
   */
  async answer(
    message: string,
    signal: AbortSignal,
    onPiece: (piece: string) => void,
  ): Promise<GenerateResult | null> {
    this.#turns.push({ role: 'user', content: message })
    const { stopIds } = this.#template
    const settings = { ...this.#options, stopIds, echo: false, addSpecialTokens: false, signal }
    const pieces = generate(this.#model, this.#tokenizer, this.#prompt(), settings)
    let text = ''
    let result: GenerateResult | null = null
    try {
      let next = await pieces.next()
      for (; !next.done; next = await pieces.next()) {
        text += next.value
        onPiece(next.value)
      }
      result = next.value
    } catch (error) {
      if (!signal.aborted) throw error
    }
    this.#turns.push({ role: 'assistant', content: text })
    return result
  }

  /** Renders the turns. Drops the oldest ones until there is room for an answer. */
  #prompt(): string {
    const room = Math.min(this.#options.maxTokens ?? 0, this.#context >> 1)
    for (;;) {
      const prompt = this.#template.render([...this.#system, ...this.#turns])
      const tokens = this.#tokenizer.encode(prompt).length
      if (tokens + room <= this.#context || this.#turns.length === 1) return prompt
      // A question and its answer are dropped together: templates expect the two to alternate.
      this.#turns.splice(0, 2)
    }
  }
}
