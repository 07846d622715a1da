// From pixels to the square that the network takes, byte for byte as the model was trained and measured.
// Made by edgekit. Plain Swift, no framework.

/// Why a picture, a model or a device cannot be used, in words.
public struct ClassifierError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// Bytes of one pixel: how many, and where each channel stands. Grey has its three channels in one place.
public struct Format: Equatable, Sendable {
    public let step: Int
    public let red: Int
    public let green: Int
    public let blue: Int
    /// nil: the picture is opaque. Colours are not multiplied by alpha.
    public let alpha: Int?

    public init(step: Int, red: Int, green: Int, blue: Int, alpha: Int? = nil) {
        self.step = step
        self.red = red
        self.green = green
        self.blue = blue
        self.alpha = alpha
    }

    public static let rgb = Format(step: 3, red: 0, green: 1, blue: 2)
    public static let rgbx = Format(step: 4, red: 0, green: 1, blue: 2)
    public static let bgrx = Format(step: 4, red: 2, green: 1, blue: 0)
    public static let rgba = Format(step: 4, red: 0, green: 1, blue: 2, alpha: 3)
    public static let grey = Format(step: 1, red: 0, green: 0, blue: 0)
}

/// A picture in memory, 8 bits a channel. It refers to the bytes and copies none.
public struct Pixels {
    public private(set) var width: Int
    public private(set) var height: Int
    let bytes: UnsafeRawBufferPointer
    let format: Format
    private var first = 0  // byte of the pixel at the top left
    private var right: Int  // bytes from a pixel to its neighbours
    private var down: Int

    /// Describes a picture whose bytes stay valid as long as this is used.
    ///
    /// - Parameter stride: bytes from a row to the next.
    /// - Throws: `ClassifierError` if there are no pixels, or fewer bytes than it says.
    public init(_ bytes: UnsafeRawBufferPointer, width: Int, height: Int, stride: Int, format: Format) throws {
        guard width > 0, height > 0 else { throw ClassifierError("a picture of \(width) x \(height) has no pixels") }
        let channels = [format.red, format.green, format.blue, format.alpha ?? 0]
        guard channels.allSatisfy({ $0 >= 0 && $0 < format.step }) else {
            throw ClassifierError("a channel lies outside of its pixel of \(format.step) bytes")
        }
        let (row, isWide) = width.multipliedReportingOverflow(by: format.step)
        guard !isWide, stride >= row else {
            throw ClassifierError("rows of \(width) pixels take \(row) bytes, and the stride is \(stride)")
        }
        let (above, isTall) = stride.multipliedReportingOverflow(by: height - 1)
        guard !isTall, bytes.count >= row, bytes.count - row >= above else {
            throw ClassifierError(
                "\(bytes.count) bytes are too few for \(width) x \(height) pixels in rows of \(stride)")
        }
        self.bytes = bytes
        self.width = width
        self.height = height
        self.format = format
        right = format.step
        down = stride
    }

    /// Returns the picture upright, by the EXIF orientation of its file (1 to 8; others change nothing, as in Pillow).
    public func turned(_ orientation: Int) -> Pixels {
        var turned = self
        if [2, 3, 7, 8].contains(orientation) {
            turned.first += (width - 1) * right
            turned.right = -right
        }
        if [3, 4, 6, 7].contains(orientation) {
            turned.first += (height - 1) * down
            turned.down = -down
        }
        if (5...8).contains(orientation) {
            swap(&turned.width, &turned.height)
            swap(&turned.right, &turned.down)
        }
        return turned
    }

    /// Writes columns of a row as RGB, with transparent parts over a colour.
    func copy(row: Int, columns: Range<Int>, over colour: [UInt8], to target: UnsafeMutablePointer<UInt8>) {
        guard let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
        var at = first + row * down + columns.lowerBound * right
        var out = target
        for _ in columns {
            let pixel = start + at
            out[0] = pixel[format.red]
            out[1] = pixel[format.green]
            out[2] = pixel[format.blue]
            if let alpha = format.alpha, pixel[alpha] < 255 {
                for channel in 0..<3 { out[channel] = composed(out[channel], pixel[alpha], colour[channel]) }
            }
            at += right
            out += 3
        }
    }
}

/// Returns a level of a transparent pixel over an opaque one, rounded as Pillow's alpha_composite does.
func composed(_ level: UInt8, _ alpha: UInt8, _ below: UInt8) -> UInt8 {
    let share = Int(alpha) << 7
    let sum = Int(level) * share + Int(below) * ((255 << 7) - share) + (128 << 7)
    return UInt8((((sum >> 8) + sum) >> 8) >> 7)
}

/// A kernel of resizing, as wide as the scale, so that nothing is aliased.
public enum Kernel: String, Sendable {
    case bilinear, bicubic

    var support: Double { self == .bilinear ? 1 : 2 }

    /// Returns the weight at a distance.
    func weight(_ distance: Double) -> Double {
        let x = abs(distance)
        if self == .bilinear { return x < 1 ? 1 - x : 0 }
        if x < 1 { return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1 }
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
    }
}

/// What of a picture becomes the square: the middle, all of it squashed, or all of it between bars.
public enum Geometry: String, Sendable {
    case centreBox = "centre-box"
    case whole, bars
}

/// Resizing to a square, as preprocess.json describes it.
public struct Fit: Sendable {
    public let size: Int
    public let resizeSize: Int
    public let kernel: Kernel
    public let geometry: Geometry
    /// R, G and B of the bars, and of what transparent parts lie over.
    public let background: [UInt8]

    public init(size: Int, resizeSize: Int, kernel: Kernel, geometry: Geometry, background: [UInt8]) throws {
        guard size > 0, resizeSize > 0, background.count == 3 else {
            throw ClassifierError("sides must be above 0, and the background three levels")
        }
        self.size = size
        self.resizeSize = resizeSize
        self.kernel = kernel
        self.geometry = geometry
        self.background = background
    }

    /// Returns the square of a picture: RGB, row by row, `size * size * 3` bytes.
    public func square(of pixels: Pixels) -> [UInt8] {
        let width = Double(pixels.width), height = Double(pixels.height)
        switch geometry {
        case .whole:
            return resized(pixels, size, size, (0, width), (0, height))
        case .bars:
            return betweenBars(pixels)
        case .centreBox:
            let scale = Double(resizeSize) / min(width, height)
            let halfWidth = min(Double(size) / scale, width) / 2, halfHeight = min(Double(size) / scale, height) / 2
            let across = (width / 2 - halfWidth, width / 2 + halfWidth)
            let along = (height / 2 - halfHeight, height / 2 + halfHeight)
            return resized(pixels, size, size, across, along)
        }
    }

    private func betweenBars(_ pixels: Pixels) -> [UInt8] {
        let longest = max(pixels.width, pixels.height)
        let width = max(1, (2 * pixels.width * size + longest) / (2 * longest))
        let height = max(1, (2 * pixels.height * size + longest) / (2 * longest))
        let left = (size - width) / 2, top = (size - height) / 2
        let edges = ((0.0, Double(pixels.width)), (0.0, Double(pixels.height)))
        let inside = resized(pixels, width, height, edges.0, edges.1)
        var square = (0..<size * size).flatMap { _ in background }
        for row in 0..<height {
            let at = ((top + row) * size + left) * 3, span = width * 3
            square.replaceSubrange(at..<at + span, with: inside[row * span..<(row + 1) * span])
        }
        return square
    }

    /// Resizes a part of a picture: across first, then down. Each pass rounds to 8 bits.
    ///
    /// - Parameters:
    ///   - across: left and right edge. along: top and bottom edge.
    private func resized(
        _ pixels: Pixels, _ width: Int, _ height: Int, _ across: (Double, Double), _ along: (Double, Double)
    ) -> [UInt8] {
        let horizontal = Taps(pixels.width, across.0, across.1, width, kernel)
        let vertical = Taps(pixels.height, along.0, along.1, height, kernel)
        let columns = horizontal.range, rows = vertical.range, span = width * 3
        var line = [UInt8](repeating: 0, count: columns.count * 3)
        var middle = [UInt8](repeating: 0, count: rows.count * span)
        var square = [UInt8](repeating: 0, count: height * span)
        line.withUnsafeMutableBufferPointer { line in
            middle.withUnsafeMutableBufferPointer { middle in
                for row in rows {
                    pixels.copy(row: row, columns: columns, over: background, to: line.baseAddress!)
                    horizontal.across(line.baseAddress!, to: middle.baseAddress! + (row - rows.lowerBound) * span)
                }
                square.withUnsafeMutableBufferPointer { vertical.down(middle.baseAddress!, span, to: $0.baseAddress!) }
            }
        }
        return square
    }
}

private let bits: Int32 = 22  // binary digits after the point of a weight

/// Which pixels of a line each output sums, and with what weights.
struct Taps {
    private(set) var first: [Int] = []
    private(set) var count: [Int] = []
    private(set) var weights: [Int32] = []
    private let most: Int  // weights of one output

    /// - Parameters:
    ///   - length: pixels of the line. start, stop: edges of the part that is resized. outputs: pixels that it becomes.
    init(_ length: Int, _ start: Double, _ stop: Double, _ outputs: Int, _ kernel: Kernel) {
        let from = Float(start), to = Float(stop)
        let scale = Double(to - from) / Double(outputs)
        let wide = max(scale, 1)
        let support = kernel.support * wide
        most = Int(support.rounded(.up)) * 2 + 1
        weights = [Int32](repeating: 0, count: outputs * most)
        for output in 0..<outputs {
            let center = Double(from) + (Double(output) + 0.5) * scale
            let low = max(Int(center - support + 0.5), 0), high = min(Int(center + support + 0.5), length)
            let shares = (low..<high).map { kernel.weight((Double($0) - center + 0.5) * (1 / wide)) }
            var total = 0.0
            for share in shares { total += share }
            for (place, share) in shares.enumerated() {
                let scaled = (total != 0 ? share / total : share) * Double(1 << bits)
                weights[output * most + place] = Int32(share < 0 ? scaled - 0.5 : scaled + 0.5)
            }
            first.append(low)
            count.append(shares.count)
        }
    }

    /// The pixels that are read at all.
    var range: Range<Int> {
        first[0]..<zip(first, count).reduce(0) { max($0, $1.0 + $1.1) }
    }

    /// Resizes a line of RGB pixels, which begins with the first that is read.
    func across(_ line: UnsafePointer<UInt8>, to target: UnsafeMutablePointer<UInt8>) {
        let begin = first[0]
        weights.withUnsafeBufferPointer { weights in
            for output in 0..<first.count {
                var red = Int32(1) << (bits - 1), green = red, blue = red
                var pixel = line + (first[output] - begin) * 3
                for place in output * most..<output * most + count[output] {
                    let weight = weights[place]
                    red &+= Int32(pixel[0]) &* weight
                    green &+= Int32(pixel[1]) &* weight
                    blue &+= Int32(pixel[2]) &* weight
                    pixel += 3
                }
                target[output * 3] = UInt8(clamping: red >> bits)
                target[output * 3 + 1] = UInt8(clamping: green >> bits)
                target[output * 3 + 2] = UInt8(clamping: blue >> bits)
            }
        }
    }

    /// Resizes columns of rows of `span` bytes, which begin with the first row that is read.
    func down(_ rows: UnsafePointer<UInt8>, _ span: Int, to target: UnsafeMutablePointer<UInt8>) {
        var sums = [Int32](repeating: 0, count: span)
        sums.withUnsafeMutableBufferPointer { sums in
            for output in 0..<first.count {
                for column in 0..<span { sums[column] = 1 << (bits - 1) }
                for place in 0..<count[output] {
                    let row = rows + (first[output] - first[0] + place) * span
                    let weight = weights[output * most + place]
                    for column in 0..<span { sums[column] &+= Int32(row[column]) &* weight }
                }
                for column in 0..<span { target[output * span + column] = UInt8(clamping: sums[column] >> bits) }
            }
        }
    }
}

/// What the model's input holds.
public struct InputTensor: Sendable {
    public enum Kind: String, Sendable { case uint8, float32 }
    public enum Layout: String, Sendable { case nhwc = "NHWC", nchw = "NCHW" }

    public let kind: Kind
    public let layout: Layout
    /// Of R, G and B, for levels of 0 to 1; empty for bytes.
    public let mean: [Float]
    public let std: [Float]

    public init(kind: Kind, layout: Layout, mean: [Float] = [], std: [Float] = []) throws {
        guard kind == .uint8 || (mean.count == 3 && std.count == 3) else {
            throw ClassifierError("mean and std need three values each")
        }
        self.kind = kind
        self.layout = layout
        self.mean = mean
        self.std = std
    }

    /// Returns the bytes of the tensor, numbers little-endian, of a square of RGB pixels.
    public func bytes(of square: [UInt8]) -> [UInt8] {
        let levels = layout == .nhwc ? square : planes(square)
        if kind == .uint8 { return levels }
        let tables = (0..<3).map { channel in
            (0..<256).map { (Float($0) - mean[channel] * 255) / (std[channel] * 255) }
        }
        let area = square.count / 3
        var values = [Float](repeating: 0, count: square.count)
        for (place, level) in levels.enumerated() {
            values[place] = tables[layout == .nhwc ? place % 3 : place / area][Int(level)]
        }
        return values.withUnsafeBytes { Array($0) }
    }

    /// Returns all of R, then all of G, then all of B.
    private func planes(_ square: [UInt8]) -> [UInt8] {
        (0..<3).flatMap { channel in stride(from: channel, to: square.count, by: 3).map { square[$0] } }
    }
}
