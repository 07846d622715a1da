// Stands in for CryptoKit: SHA-256 and the verification of ECDSA P-256, by OpenSSL's libcrypto.
import CCrypto
import Foundation

public enum CryptoKitError: Error { case incorrectParameterSize, authenticationFailure }

/// A hash; copies share what they have hashed so far, so only one of them may be added to.
public struct SHA256 {
    public struct Digest: Sequence {
        let bytes: [UInt8]
        public func makeIterator() -> IndexingIterator<[UInt8]> { bytes.makeIterator() }
    }

    private final class State {
        let hash: OpaquePointer
        init() { hash = hash_new() }
        deinit { hash_free(hash) }
    }

    private let state = State()

    public init() {}

    public mutating func update<Bytes: DataProtocol>(data: Bytes) {
        for region in data.regions {
            region.withUnsafeBytes { hash_add(state.hash, $0.baseAddress, $0.count) }
        }
    }

    public func finalize() -> Digest {
        var value = [UInt8](repeating: 0, count: 32)
        hash_value(state.hash, &value)
        return Digest(bytes: value)
    }

    public static func hash<Bytes: DataProtocol>(data: Bytes) -> Digest {
        var hash = SHA256()
        hash.update(data: data)
        return hash.finalize()
    }
}

public enum P256 {
    public enum Signing {
        public struct ECDSASignature {
            let bytes: [UInt8]

            public init<Bytes: DataProtocol>(derRepresentation bytes: Bytes) throws {
                self.bytes = Array(bytes)
                guard signature_is_der(self.bytes, self.bytes.count) == 1 else {
                    throw CryptoKitError.incorrectParameterSize
                }
            }
        }

        public struct PublicKey {
            private let point: [UInt8]
            public var x963Representation: Data { Data(point) }

            public init<Bytes: ContiguousBytes>(x963Representation bytes: Bytes) throws {
                point = bytes.withUnsafeBytes { Array($0) }
                guard point.count == 65, point_is_valid(point) == 1 else {
                    throw CryptoKitError.incorrectParameterSize
                }
            }

            public func isValidSignature<Bytes: DataProtocol>(_ signature: ECDSASignature, for data: Bytes) -> Bool {
                let value = Array(SHA256.hash(data: data))
                return signature_is_valid(point, value, signature.bytes, signature.bytes.count) == 1
            }
        }
    }
}
