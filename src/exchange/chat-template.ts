/**
 * Turns conversations into text, with the chat template that comes with a model (written in Jinja),
 * or with ChatML if the tokenizer has its tokens.
 */
import { z } from 'zod'
import { KindlingError } from '../errors'
import { checked, checkedValue } from '../options'
import { Tokenizer } from '../tokenizer'
import { renderBounded } from './bounded-template'
import type { Companions } from './companions'
import { loadedModelFields } from './loaded-model'

/** One turn of a conversation. */
export interface ChatMessage {
  /** Who speaks. */
  role: 'system' | 'user' | 'assistant'
  /** The text of the turn, without the template's marks. */
  content: string
}

/** The model to make a chat template for, as `load` returns it. */
export interface ChatModel {
  /** Its tokenizer, which a conversation needs; null if the model came without one. */
  tokenizer: Tokenizer | null
  /** Files that came with the model, such as tokenizer_config.json with the template. */
  companions?: Companions | undefined
  /** Token ids that end a turn, in addition to those of known model families. */
  stopIds?: readonly number[] | undefined
}

/** ChatML. The templates of SmolLM2 and Qwen are extensions of it. */
const CHATML =
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + " +
  "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}" +
  '{% endif %}'
const CHATML_TOKENS = ['<|im_start|>', '<|im_end|>']

/** Tokens that end a turn in the templates of known model families. */
const ENDS_OF_TURN = ['<|im_end|>', '<|eot_id|>', '<|end|>', '<end_of_turn>', '</s>']

/** Longest template, in characters; those in use have a few thousand. */
const LONGEST = 1 << 18

/** The part of @huggingface/jinja that is used here. */
interface Jinja {
  Template: new (text: string) => object
}

/** Beside these, what else `load` returns. */
const modelSchema = z.object({
  tokenizer: loadedModelFields.tokenizer,
  companions: loadedModelFields.companions,
  stopIds: z.array(z.int().min(0)).default([]),
})
/** Templates may read more of a message than its text. */
const messagesSchema = z.array(z.looseObject({ role: z.string(), content: z.string() }))

/** Renders conversations for a model. */
export class ChatTemplate {
  readonly #template: string
  readonly #tokens: Record<string, string>
  /** Ids that end an answer; pass them to `generate`. */
  readonly stopIds: number[]

  /**
   * @throws KindlingError `ERR_UNSUPPORTED` for a model without a template and without the tokens
   * of ChatML, or with a template that cannot be read; `ERR_INVALID_ARGUMENT`.
   */
  constructor(model: ChatModel) {
    const { tokenizer, companions, stopIds } = checked('ChatTemplate', modelSchema, model)
    if (tokenizer) Tokenizer.toNative(tokenizer)
    const text = templateOf(companions) ?? chatMlFor(tokenizer)
    this.#tokens = tokensOf(companions)
    const ends = ENDS_OF_TURN.filter((token) => text.includes(token))
    const ids = ends.map((token) => tokenizer?.tokenId(token))
    this.stopIds = [...new Set([...stopIds, ...ids.filter((id) => id !== undefined)])]
    this.#template = text
    understood(() => {
      if (text.length > LONGEST) throw new Error(`it has ${text.length} characters`)
      // Loaded only when needed: most commands do without it.
      // eslint-disable-next-line @typescript-eslint/no-require-imports
      const { Template } = require('@huggingface/jinja') as Jinja
      return new Template(text)
    })
  }

  /**
   * Returns the prompt that a model continues with the next answer. It contains the special tokens
   * that the model expects, so pass it to `generate` with `addSpecialTokens: false`.
   *
   * @throws KindlingError `ERR_UNSUPPORTED` if the template rejects the conversation, as some do
   * with a system message, or takes more than 5 s or 256 MiB;
   * `ERR_INVALID_ARGUMENT`.
   */
  render(messages: readonly ChatMessage[]): string {
    checkedValue('render: messages', messagesSchema, messages)
    const values = { ...this.#tokens, messages, add_generation_prompt: true }
    return understood(() => renderBounded(this.#template, values))
  }
}

function understood<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError(
      'ERR_UNSUPPORTED',
      `the model's chat template cannot be used: ${reason}; use kindling generate, which needs no template`,
      { cause: error },
    )
  }
}

/**
 * Returns the template in chat_template.jinja or tokenizer_config.json; of several, the one named
 * `default`.
 */
function templateOf(companions: Companions): string | undefined {
  const file = companions['chat_template.jinja']
  if (file !== undefined) return file
  const template = configOf(companions)['chat_template']
  if (typeof template === 'string') return template
  if (!Array.isArray(template)) return undefined
  const named = template as { name?: unknown; template?: unknown }[]
  const found = named.find((entry) => entry?.name === 'default')?.template
  return typeof found === 'string' ? found : undefined
}

function chatMlFor(tokenizer: Tokenizer | null): string {
  if (CHATML_TOKENS.every((token) => tokenizer?.tokenId(token) !== undefined)) return CHATML
  throw new KindlingError(
    'ERR_UNSUPPORTED',
    `the model has no chat template, and its tokenizer lacks ${CHATML_TOKENS.join(' and ')} of ` +
      'ChatML; use kindling generate, or a model that was trained on conversations',
  )
}

/** Returns bos_token, eos_token and the like, with the names that templates use. */
function tokensOf(companions: Companions): Record<string, string> {
  const tokens = Object.entries(configOf(companions)).map(([name, token]) => {
    const text =
      typeof token === 'string' ? token : (token as { content?: unknown } | null)?.content
    return name.endsWith('_token') && typeof text === 'string' ? [[name, text] as const] : []
  })
  return Object.fromEntries(tokens.flat())
}

function configOf(companions: Companions): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(companions['tokenizer_config.json'] ?? '{}')
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
