package android.graphics;

/** Pixels that the kit's own test decoded, whose alpha is not premultiplied. */
public class Bitmap {
    public enum Config { ARGB_8888, HARDWARE }

    private final com.example.fruit.Picture picture;

    Bitmap(com.example.fruit.Picture picture) {
        this.picture = picture;
    }

    public int getWidth() {
        return picture.getWidth();
    }

    public int getHeight() {
        return picture.getHeight();
    }

    public void getPixels(int[] into, int offset, int stride, int x, int y, int width, int height) {
        if (offset != 0 || stride != width) throw new IllegalArgumentException();
        picture.read(x, y, width, height, into);
    }

    public Config getConfig() {
        return Config.ARGB_8888;
    }

    public Bitmap copy(Config config, boolean isMutable) {
        return this;
    }

    public void recycle() {}
}
