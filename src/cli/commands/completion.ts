/** `kindling completion`: prints a script that makes a shell complete commands and flags. */
import { Argument, Command } from 'commander'
import { SHELLS, completionScript, type Shell } from '../completion'
import { addExamples } from '../examples'
import { write } from '../streams'

const EXAMPLES = [
  'kindling completion bash > kindling.bash',
  'kindling completion fish > kindling.fish',
]
const NOTES =
  'For bash or zsh, add this line to ~/.bashrc or ~/.zshrc, with the name of your shell: ' +
  'source <(kindling completion bash). For fish, save the script in ~/.config/fish/completions.'

export function completionCommand(): Command {
  const command = new Command('completion')
    .description('print a shell completion script')
    .addArgument(new Argument('<shell>', SHELLS.join(', ')).choices(SHELLS))
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action((shell: Shell) => {
    write(process.stdout, completionScript(command.parent!, shell))
  })
}
