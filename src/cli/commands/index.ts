/** All commands, in the order of the help. */
import type { Command } from 'commander'
import { accountCommand } from './account'
import { benchCommand } from './bench'
import { dashboardCommand } from './dashboard'
import { dataCommand } from './data'
import { encodeCommand } from './encode'
import { evalCommand } from './eval'
import { exportCommand } from './export'
import { generateCommand } from './generate'
import { importCommand } from './import'
import { quickstartCommand } from './quickstart'
import { reportCommand } from './report'
import { runsCommand } from './runs'
import { sweepCommand } from './sweep'
import { tokenizerCommand } from './tokenizer'
import { trainCommand } from './train'

export function commands(): Command[] {
  return [
    quickstartCommand(),
    tokenizerCommand(),
    encodeCommand(),
    dataCommand(),
    trainCommand(),
    generateCommand(),
    evalCommand(),
    importCommand(),
    exportCommand(),
    runsCommand(),
    dashboardCommand(),
    reportCommand(),
    accountCommand(),
    sweepCommand(),
    benchCommand(),
  ]
}
