/**
 * Where generated text can start: at `<|endoftext|>` if the training data has it, else at a line
 * break, which a model has seen.
 */
import type { TokenStore } from '../token-store'
import { END_OF_TEXT, type Tokenizer } from '../tokenizer'

/** Places of a store that are searched, and tokens at each: all of a store up to a million tokens. */
const PLACES = 64
const TOKENS = 16_384

/**
 * Returns whether `<|endoftext|>` occurs in the stores, at places all over them: where it is rarer
 * than once in a million tokens, a model can't learn what follows it.
 */
export function hasEndOfText(stores: readonly TokenStore[], tokenizer: Tokenizer): boolean {
  const id = tokenizer.tokenId(END_OF_TEXT)
  return id !== undefined && stores.some((store) => occursIn(store, id))
}

function occursIn(store: TokenStore, id: number): boolean {
  const last = Math.max(0, store.length - TOKENS)
  const starts = Array.from({ length: PLACES }, (_, i) => Math.floor((i * last) / (PLACES - 1)))
  return [...new Set(starts)].some((start) =>
    store.loadByRange(start, Math.min(store.length, start + TOKENS)).includes(id),
  )
}

/** Returns the prompt of a text that is to start anywhere: `''` stands for `<|endoftext|>`. */
export function startPrompt(tokenizer: Tokenizer, endOfText: boolean | undefined): string {
  const hasToken = tokenizer.tokenId(END_OF_TEXT) !== undefined
  if (hasToken && endOfText !== false) return ''
  return ['\n', ' '].find((text) => canEncode(tokenizer, text)) ?? firstCharacter(tokenizer)
}

/** Returns false if a tokenizer of characters lacks one of the text. */
function canEncode(tokenizer: Tokenizer, text: string): boolean {
  try {
    return tokenizer.encode(text).length > 0
  } catch {
    return false
  }
}

function firstCharacter(tokenizer: Tokenizer): string {
  return tokenizer.decode(Uint32Array.of(Object.keys(tokenizer.specialTokens).length))
}
