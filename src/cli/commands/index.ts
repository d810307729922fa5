/** All commands, in the order of the help. */
import type { Command } from 'commander'
import { accountCommand } from './account'
import { benchCommand } from './bench'
import { chatCommand } from './chat'
import { completionCommand } from './completion'
import { dashboardCommand } from './dashboard'
import { dataCommand } from './data'
import { encodeCommand } from './encode'
import { evalCommand } from './eval'
import { exportCommand } from './export'
import { generateCommand } from './generate'
import { helpCommand } from './help'
import { importCommand } from './import'
import { quickstartCommand } from './quickstart'
import { reportCommand } from './report'
import { runsCommand } from './runs'
import { sweepCommand } from './sweep'
import { tokenizerCommand } from './tokenizer'
import { trainCommand } from './train'

export function commands(): Command[] {
  return [
    ...grouped('Start', [quickstartCommand()]),
    ...grouped('Data', [tokenizerCommand(), encodeCommand(), dataCommand()]),
    ...grouped('Models', [
      trainCommand(),
      generateCommand(),
      chatCommand(),
      evalCommand(),
      importCommand(),
      exportCommand(),
    ]),
    ...grouped('Runs', [runsCommand(), dashboardCommand(), reportCommand()]),
    ...grouped('Measurements', [accountCommand(), sweepCommand(), benchCommand()]),
    ...grouped('Help', [helpCommand(), completionCommand()]),
  ]
}

/** Sets the heading of commands in the help of the program. */
function grouped(heading: string, list: Command[]): Command[] {
  return list.map((command) => command.helpGroup(`${heading}:`))
}
