/**
 * Where generated text can start: after `<|endoftext|>` if the training data contains it, else
 * after a line break, which a model has seen in training.
 */
import type { TokenStore } from '../token-store'
import { END_OF_TEXT, type Tokenizer } from '../tokenizer'

/**
 * Number of places in a store to search, and tokens at each: a store of up to a million tokens is
 * searched as a whole.
 */
const PLACES = 64
const TOKENS = 16_384

/**
 * Returns whether `<|endoftext|>` occurs in any of the stores. Searches places spread over each
 * store: if the token is rarer than once in a million, a model cannot learn what follows it.
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

/** Returns the prompt for generating text from scratch; `''` means `<|endoftext|>`. */
export function startPrompt(tokenizer: Tokenizer, endOfText: boolean | undefined): string {
  const hasToken = tokenizer.tokenId(END_OF_TEXT) !== undefined
  if (hasToken && endOfText !== false) return ''
  return ['\n', ' '].find((text) => canEncode(tokenizer, text)) ?? firstCharacter(tokenizer)
}

/** Returns false if the text has a character that a character-level tokenizer lacks. */
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
