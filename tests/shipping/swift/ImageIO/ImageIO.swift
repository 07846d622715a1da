// Stands in for ImageIO: reads FILE.raw, a line "width height layout orientation" and the decoded bytes.
import CoreGraphics

public let kCGImagePropertyOrientation: CFString = "Orientation"

public final class CGImageSource {
    let image: CGImage
    let orientation: Int

    init?(_ url: URL) {
        guard let raw = try? Data(contentsOf: url.appendingPathExtension("raw")), let end = raw.firstIndex(of: 10)
        else { return nil }
        let words = String(decoding: raw[..<end], as: UTF8.self).split(separator: " ")
        let (width, height, bytes) = (Int(words[0])!, Int(words[1])!, Data(raw[(end + 1)...]))
        orientation = Int(words[3])!
        switch words[2] {
        case "rgb": image = CGImage(width, height, 3, .rgb, .none, .orderDefault, bytes)
        case "rgbx": image = CGImage(width, height, 4, .rgb, .noneSkipLast, .orderDefault, bytes)
        case "xrgb": image = CGImage(width, height, 4, .rgb, .noneSkipFirst, .order32Big, bytes)
        case "bgrx": image = CGImage(width, height, 4, .rgb, .noneSkipFirst, .order32Little, bytes)
        case "rgba": image = CGImage(width, height, 4, .rgb, .last, .orderDefault, bytes)
        case "abgr": image = CGImage(width, height, 4, .rgb, .last, .order32Little, bytes)
        case "grey": image = CGImage(width, height, 1, .monochrome, .none, .orderDefault, bytes)
        default: image = CGImage(width, height, 4, .indexed, .last, .orderDefault, bytes)  // has to be drawn
        }
    }
}

public func CGImageSourceCreateWithURL(_ url: CFURL, _ options: CFDictionary?) -> CGImageSource? { CGImageSource(url) }

public func CGImageSourceCreateImageAtIndex(
    _ source: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> CGImage? { source.image }

public func CGImageSourceCopyPropertiesAtIndex(
    _ source: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> CFDictionary? { [kCGImagePropertyOrientation: source.orientation] }
