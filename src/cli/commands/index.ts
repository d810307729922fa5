/** Every command, in the order of the help. */
import type { Command } from 'commander'
import { encodeCommand } from './encode'
import { evalCommand } from './eval'
import { generateCommand } from './generate'
import { quickstartCommand } from './quickstart'
import { tokenizerCommand } from './tokenizer'
import { trainCommand } from './train'

export function commands(): Command[] {
  return [
    quickstartCommand(),
    tokenizerCommand(),
    encodeCommand(),
    trainCommand(),
    generateCommand(),
    evalCommand(),
  ]
}
