// swift-tools-version:5.9
// The driver of the tests: the kit's own files for updates, which get into Driver, and a stand-in for CryptoKit.
import PackageDescription

let package = Package(
    name: "Driver",
    targets: [
        .target(name: "CCrypto", path: "CCrypto", linkerSettings: [.unsafeFlags(["-l:libcrypto.so.3"])]),
        .target(name: "CryptoKit", dependencies: ["CCrypto"], path: "CryptoKit"),
        .executableTarget(name: "Driver", dependencies: ["CryptoKit"], path: "Driver"),
    ]
)
