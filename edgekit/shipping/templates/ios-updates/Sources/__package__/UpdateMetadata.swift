// Metadata of a release folder: first its signatures, then what it says. Made by edgekit.
//
// The folder is a repository of The Update Framework (TUF 1.0). A metadata file is an envelope: signatures, and the
// very bytes that were signed. Nothing of them is parsed before enough keys are found to have signed them.

#if canImport(CryptoKit)
import CryptoKit
import Foundation

/// Why an update is not taken.
struct Refused: Error {
    let reason: String

    init(_ reason: String) {
        self.reason = reason
    }
}

/// Runs an action, and puts the name of a file before the reason why it was refused.
func reading<Value>(_ name: String, _ action: () throws -> Value) throws -> Value {
    do { return try action() } catch let refused as Refused { throw Refused("\(name): \(refused.reason)") }
}

/// Reads bytes from the first to the last.
private struct Reader {
    private let bytes: [UInt8]
    private(set) var at = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    /// Skips a text if it is what comes next, and returns whether it was.
    mutating func skips(_ text: String) -> Bool {
        guard bytes[at...].starts(with: text.utf8) else { return false }
        at += text.utf8.count
        return true
    }

    /// Skips bytes as long as they are of a kind, and returns them.
    mutating func take(while isOfTheKind: (UInt8) -> Bool) -> ArraySlice<UInt8> {
        let taken = bytes[at...].prefix(while: isOfTheKind)
        at += taken.count
        return taken
    }

    var rest: ArraySlice<UInt8> { bytes[at...] }
}

/// A metadata file: {"signatures":[…],"signed":…}, and no other byte. In `text`, newlines are written as \n.
struct Envelope {
    let signatures: [(key: String, signature: [UInt8])]
    let text: [UInt8]

    init(_ file: Data) throws {
        var reader = Reader([UInt8](file))
        var found: [(key: String, signature: [UInt8])] = []
        guard reader.skips("{\"signatures\":[") else { throw Envelope.wrong }
        while !reader.skips("]") {
            guard found.count < 16, found.isEmpty || reader.skips(","), reader.skips("{\"keyid\":\"") else {
                throw Envelope.wrong
            }
            let key = reader.take(while: isHex)
            guard key.count == 64, reader.skips("\",\"sig\":\"") else { throw Envelope.wrong }
            let signature = reader.take(while: isHex)
            guard signature.count % 2 == 0, reader.skips("\"}") else { throw Envelope.wrong }
            found.append((String(decoding: key, as: UTF8.self), bytes(ofHex: signature)))
        }
        guard reader.skips(",\"signed\":"), reader.next == UInt8(ascii: "{"), reader.rest.last == UInt8(ascii: "}")
        else { throw Envelope.wrong }
        signatures = found
        text = Array(reader.rest.dropLast())
    }

    /// The bytes that were signed: there, newlines are bytes of their own.
    func signedBytes() throws -> Data {
        var signed = Data(capacity: text.count)
        var isEscaped = false
        for byte in text {
            if isEscaped {
                guard byte == UInt8(ascii: "n") else { throw Envelope.wrong }
                signed.append(10)
            } else if byte != UInt8(ascii: "\\") {
                signed.append(byte)
            }
            isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
        }
        guard !isEscaped else { throw Envelope.wrong }
        return signed
    }

    private static let wrong = Refused("not a metadata file of edgekit")
}

/// A value of the JSON that metadata is written in: no spaces, no fractions, no escape but \n, no key twice.
enum Value: Equatable {
    case object([String: Value])
    case list([Value])
    case text(String)
    case number(Int)
    case flag(Bool)
    case nothing

    /// - Throws: `Refused` if the bytes are anything else.
    init(_ bytes: [UInt8]) throws {
        var reader = Reader(bytes)
        self = try reader.value(depth: 0)
        guard reader.next == nil else { throw reader.wrong }
    }

    subscript(_ key: String) -> Value? {
        if case .object(let values) = self { return values[key] }
        return nil
    }

    func object(_ key: String) throws -> [String: Value] {
        guard case .object(let values)? = self[key] else { throw Refused("no object \(key)") }
        return values
    }

    func text(_ key: String) throws -> String {
        guard case .text(let text)? = self[key] else { throw Refused("no text \(key)") }
        return text
    }

    func texts(_ key: String) throws -> [String] {
        guard case .list(let values)? = self[key] else { throw Refused("no list \(key)") }
        return try values.map {
            guard case .text(let text) = $0 else { throw Refused("something else than text in \(key)") }
            return text
        }
    }

    /// Returns a whole number that is not negative.
    func number(_ key: String) throws -> Int {
        guard case .number(let number)? = self[key], number >= 0 else { throw Refused("no number \(key)") }
        return number
    }

    /// The second at which metadata expires, of 1970.
    func expires() throws -> Int {
        let text = try text("expires")
        guard text.utf8.count == 20, let date = ISO8601DateFormatter().date(from: text) else {
            throw Refused("no time expires")
        }
        return Int(date.timeIntervalSince1970)
    }
}

extension Reader {
    fileprivate var wrong: Refused { Refused("no strict JSON at byte \(at)") }

    fileprivate mutating func value(depth: Int) throws -> Value {
        guard let first = next, depth <= 32 else { throw wrong }
        switch first {
        case UInt8(ascii: "{"): return .object(try object(depth: depth + 1))
        case UInt8(ascii: "["): return .list(try list(depth: depth + 1))
        case UInt8(ascii: "\""): return .text(try text())
        case _ where skips("true"): return .flag(true)
        case _ where skips("false"): return .flag(false)
        case _ where skips("null"): return .nothing
        default: return .number(try number())
        }
    }

    private mutating func object(depth: Int) throws -> [String: Value] {
        var values: [String: Value] = [:]
        guard skips("{"), !skips("}") else { return values }
        repeat {
            let key = try text()
            guard values[key] == nil, skips(":") else { throw wrong }
            values[key] = try value(depth: depth)
        } while skips(",")
        guard skips("}") else { throw wrong }
        return values
    }

    private mutating func list(depth: Int) throws -> [Value] {
        var values: [Value] = []
        guard skips("["), !skips("]") else { return values }
        repeat { values.append(try value(depth: depth)) } while skips(",")
        guard skips("]") else { throw wrong }
        return values
    }

    private mutating func text() throws -> String {
        guard skips("\"") else { throw wrong }
        var bytes: [UInt8] = []
        while !skips("\"") {
            bytes += take { $0 >= 32 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
            if next == UInt8(ascii: "\"") { continue }
            guard skips("\\n") else { throw wrong }
            bytes.append(10)
        }
        guard let text = String(bytes: bytes, encoding: .utf8) else { throw wrong }
        return text
    }

    private mutating func number() throws -> Int {
        let sign = skips("-") ? -1 : 1
        let digits = take { UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }
        let isPlain = digits.first != UInt8(ascii: "0") || (digits.count == 1 && sign == 1)
        guard digits.count <= 15, isPlain, let number = Int(String(decoding: digits, as: UTF8.self))
        else { throw wrong }
        return sign * number
    }
}

/// Metadata of the role root: who may sign what.
struct Root {
    let file: Data
    let version: Int
    let expires: Int
    private let keys: [String: P256.Signing.PublicKey]
    private let roles: [String: Value]

    /// Reads a file that is trusted: the app's, or one that `next` returned.
    init(trusted file: Data) throws {
        try self.init(file, Value(Envelope(file).text))
    }

    /// Returns the root that comes after this one: signed by this one's keys and by its own.
    func next(_ file: Data) throws -> Root {
        let next = try Root(file, verified(file, "root"))
        guard next.version == version + 1 else { throw Refused("another version than \(version + 1)") }
        return next
    }

    private init(_ file: Data, _ signed: Value) throws {
        self.file = file
        version = try signed.number("version")
        expires = try signed.expires()
        roles = try signed.object("roles")
        keys = try signed.object("keys").compactMapValues(key)  // those of other kinds sign nothing
        _ = try verified(file, "root")
    }

    /// Returns what a metadata file says, after enough keys of a role are found to have signed it.
    func verified(_ file: Data, _ role: String) throws -> Value {
        guard let wanted = roles[role] else { throw Refused("root has no role \(role)") }
        let envelope = try Envelope(file), bytes = try envelope.signedBytes()
        let ids = try wanted.texts("keyids"), least = try wanted.number("threshold")
        var signers = Set<Data>()  // a key that has two ids counts once
        for (id, signature) in envelope.signatures where ids.contains(id) {
            guard let key = keys[id], let signature = try? P256.Signing.ECDSASignature(derRepresentation: signature),
                key.isValidSignature(signature, for: bytes)
            else { continue }
            signers.insert(key.x963Representation)
        }
        guard least > 0, signers.count >= least else { throw Refused("signed by \(signers.count) of \(least) keys") }
        let signed = try Value(envelope.text)
        guard try signed.text("_type") == role else { throw Refused("of another type") }
        return signed
    }

    /// The keys of the roles that are signed often: another text where one of them is another.
    func signers() throws -> String {
        try ["timestamp", "snapshot", "targets"].map { role in
            guard let wanted = roles[role] else { throw Refused("no role \(role)") }
            return "\(role):\(try wanted.texts("keyids").sorted().joined(separator: ","))"
        }.joined(separator: ";")
    }
}

/// Returns the key of P-256 that an entry of root describes; nil if it is of another kind.
private func key(_ entry: Value) -> P256.Signing.PublicKey? {
    let head = "-----BEGIN PUBLIC KEY-----\n", end = "-----END PUBLIC KEY-----"
    guard case .text("ecdsa")? = entry["keytype"], case .text("ecdsa-sha2-nistp256")? = entry["scheme"],
        case .text(let pem)? = entry["keyval"]?["public"], pem.hasPrefix(head), let stop = pem.range(of: end),
        let info = Data(base64Encoded: pem[..<stop.lowerBound].dropFirst(head.count).filter { $0 != "\n" }),
        info.count == 26 + 65, info.starts(with: bytes(ofHex: infoOfP256))
    else { return nil }
    return try? P256.Signing.PublicKey(x963Representation: info.suffix(65))
}

/// How the SubjectPublicKeyInfo of every key of P-256 begins; the 65 bytes of its point follow.
private let infoOfP256 = "3059301306072a8648ce3d020106082a8648ce3d030107034200".utf8

func isHex(_ byte: UInt8) -> Bool {
    UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte || UInt8(ascii: "a")...UInt8(ascii: "f") ~= byte
}

private func bytes<Digits: Sequence>(ofHex digits: Digits) -> [UInt8] where Digits.Element == UInt8 {
    let values = digits.map { $0 <= UInt8(ascii: "9") ? $0 - UInt8(ascii: "0") : $0 - UInt8(ascii: "a") + 10 }
    return stride(from: 0, to: values.count, by: 2).map { values[$0] << 4 | values[$0 + 1] }
}

/// Returns 64 digits.
func hex(_ digest: SHA256.Digest) -> String {
    digest.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
}
#endif
