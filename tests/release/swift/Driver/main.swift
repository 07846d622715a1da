// Runs the iOS kit's client for updates from the command line, for the tests: see tests/release/clients.
//     Driver --kit DIR --state DIR [--url URL] [--channel C] [--app N] [--now SECONDS] [--timeout S]
//         [--test PROGRAM] [--test-seconds S] check|start|good|stopped|twice …
// "stopped" is a check whose task is cancelled after a second, "twice" two at once.
import Foundation

/// Stands for the kit's.
struct ClassifierError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

func fail(_ reason: String) -> Never {
    FileHandle.standardError.write(Data("\(reason)\n".utf8))
    exit(2)
}

/// Runs a program with a folder. 86 stands for a crash of the app: it ends this process. 87: it cannot tell.
@Sendable func runs(_ program: String, _ folder: URL) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = [folder.path]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice  // else whoever reads this one's waits for a program that hangs
    try process.run()
    process.waitUntilExit()
    if process.terminationStatus == 86 { kill(getpid(), SIGKILL) }
    if process.terminationStatus == 87 { throw NotTested("nothing to compare with") }
    guard process.terminationStatus == 0 else { throw ClassifierError("exit status \(process.terminationStatus)") }
}

final class Box<Value>: @unchecked Sendable { var value: Value? }

/// Waits for what a task returns.
func wait<Value: Sendable>(_ action: @escaping @Sendable () async -> Value) -> Value {
    let box = Box<Value>(), done = DispatchSemaphore(value: 0)
    Task.detached {
        box.value = await action()
        done.signal()
    }
    done.wait()
    return box.value!
}

func show(_ answer: [String: String]) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try! encoder.encode(answer), as: UTF8.self))
    fflush(stdout)
}

func show(_ command: String, _ outcome: Outcome) {
    show(["did": command, "state": outcome.state.rawValue, "release": outcome.release, "reason": outcome.reason])
}

let names = ["kit", "state", "url", "channel", "app", "now", "timeout", "test", "test-seconds"]
var given: [String: String] = [:]
var commands: [String] = []
var words = CommandLine.arguments.dropFirst()
while let word = words.popFirst() {
    if word.hasPrefix("--"), names.contains(String(word.dropFirst(2))), let value = words.popFirst() {
        given[String(word.dropFirst(2))] = value
    } else if ["check", "start", "good", "stopped", "twice"].contains(word) {
        commands.append(word)
    } else {
        fail("unknown: \(word)")
    }
}
guard let kit = given["kit"], let state = given["state"], !commands.isEmpty else { fail("--kit, --state, a command") }
let program = given["test"]
let updates: Updates
do {
    updates = try Updates(
        own: URL(fileURLWithPath: kit), folder: URL(fileURLWithPath: state), url: given["url"],
        channel: given["channel"], silence: Double(given["timeout"] ?? "15")!,
        testSeconds: Double(given["test-seconds"] ?? "300")!
    ) { if let program { try runs(program, $0) } }
} catch {
    fail("\(error)")
}
for command in commands {
    switch command {
    case "check":
        let now = given["now"].map { Int($0)! } ?? Int(Date().timeIntervalSince1970)
        show(command, updates.check(app: Int(given["app"] ?? "0")!, now: now, stop: Stop()))
    case "stopped":
        let outcome = wait {
            let check = Task { await updates.check() }
            try? await Task.sleep(nanoseconds: 1_000_000_000)
            check.cancel()
            return await check.value
        }
        show(command, outcome)
    case "twice":
        let outcomes = wait {
            async let one = updates.check()
            async let other = updates.check()
            return await [one, other]
        }
        for outcome in outcomes { show(command, outcome) }
    case "start":
        let folder = updates.start()
        show(["did": command, "release": folder?.lastPathComponent ?? "", "folder": folder?.path ?? kit])
    default:
        updates.good()
        show(["did": command])
    }
}
