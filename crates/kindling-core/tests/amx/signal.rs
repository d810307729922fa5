//! Emulation of AMX on processors without it, where its instructions raise SIGILL. The handler
//! decodes the instruction, executes it on the thread's emulated tiles, and resumes after it.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::sync::Once;

use super::instructions::{Instruction, decode};
use super::tiles::Machine;

thread_local! {
    static COUNTS: Cell<[usize; 7]> = const { Cell::new([0; 7]) };
    static MACHINE: RefCell<Machine> = const { RefCell::new(Machine::new()) };
}

/// Returns how often each instruction has run on this thread, in the order of `index`.
pub fn counts() -> [usize; 7] {
    COUNTS.get()
}

/// Installs the handler, once.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler has the type that SA_SIGINFO requires, and the rest of the structure
        // is zero.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}

/// The registers, indexed by their numbers in instructions.
const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Handles SIGILL. Only the instruction itself raises the signal, never code that allocates or
/// holds a lock, so the handler may allocate and lock.
extern "C" fn on_illegal_instruction(
    _: libc::c_int,
    _: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the context comes from the system, and more code follows the bytes of the
    // instruction.
    let (saved, code) = unsafe {
        let saved = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let code = *(saved[libc::REG_RIP as usize] as *const [u8; 16]);
        (saved, code)
    };
    let registers = REGISTERS.map(|register| saved[register as usize].cast_unsigned());
    let Some((instruction, len)) = decode(&code, &registers) else {
        abort(&format!("illegal instruction {code:02X?}"));
    };
    // SAFETY: the addresses are the program's, and a wrong one crashes it as the instruction would.
    if let Err(problem) = MACHINE.with_borrow_mut(|machine| unsafe { machine.run(instruction) }) {
        abort(&format!("{problem}: {instruction:?}"));
    }
    let mut counts = COUNTS.get();
    counts[index(instruction)] += 1;
    COUNTS.set(counts);
    saved[libc::REG_RIP as usize] += len as i64;
}

fn index(instruction: Instruction) -> usize {
    match instruction {
        Instruction::LoadConfiguration(_) => 0,
        Instruction::Release => 1,
        Instruction::Zero(_) => 2,
        Instruction::Load { .. } => 3,
        Instruction::Store { .. } => 4,
        Instruction::Dot { .. } => 5,
        Instruction::LoadStream { .. } => 6,
    }
}

/// Reports the problem and aborts, since a signal handler cannot unwind.
fn abort(problem: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "{problem}");
    std::process::abort();
}
