/** `kindling completion`: prints a script that makes a shell complete commands and flags. */
import { Argument, Command } from 'commander'
import { SHELLS, completionScript, type Shell } from '../completion'
import { addExamples } from '../examples'
import { write } from '../streams'

const EXAMPLES = [
  'kindling completion bash > kindling.bash',
  'kindling completion fish > kindling.fish',
]
const NOTES = `Bash and zsh read the script by: source <(kindling completion bash), in ~/.bashrc or ~/.zshrc;
fish reads those in ~/.config/fish/completions.`

export function completionCommand(): Command {
  const command = new Command('completion')
    .description('print a script for completion in a shell')
    .addArgument(new Argument('<shell>', SHELLS.join(', ')).choices(SHELLS))
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action((shell: Shell) => {
    write(process.stdout, completionScript(command.parent!, shell))
  })
}
