// Runs the iOS kit's client for updates from the command line, for the tests: see tests/release/clients.
//     Driver --kit DIR --state DIR [--url URL] [--channel C] [--app N] [--now SECONDS] [--timeout S]
//         [--test PROGRAM] [--test-seconds S] check|start|good …
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

/// Runs a program with a folder. One that would have crashed an app ends this process.
@Sendable func runs(_ program: String, _ folder: URL) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = [folder.path]
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    if process.terminationStatus == 86 { kill(getpid(), SIGKILL) }
    guard process.terminationStatus == 0 else { throw ClassifierError("exit status \(process.terminationStatus)") }
}

func show(_ answer: [String: String]) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try! encoder.encode(answer), as: UTF8.self))
    fflush(stdout)
}

let names = ["kit", "state", "url", "channel", "app", "now", "timeout", "test", "test-seconds"]
var given: [String: String] = [:]
var commands: [String] = []
var words = CommandLine.arguments.dropFirst()
while let word = words.popFirst() {
    if word.hasPrefix("--"), names.contains(String(word.dropFirst(2))), let value = words.popFirst() {
        given[String(word.dropFirst(2))] = value
    } else if ["check", "start", "good"].contains(word) {
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
        let outcome = updates.check(app: Int(given["app"] ?? "0")!, now: now, stop: Stop())
        show(["did": command, "state": outcome.state.rawValue, "release": outcome.release, "reason": outcome.reason])
    case "start":
        let folder = updates.start()
        show(["did": command, "release": folder?.lastPathComponent ?? "", "folder": folder?.path ?? kit])
    default:
        updates.good()
        show(["did": command])
    }
}
