// Progress on stderr: on a terminal a bar with the time left, else a line a block. One writer, the thread that runs the command.
#pragma once
#include <chrono>
#include <string>

#include "pipeline/quantize.h"

namespace signround {

class Progress {
 public:
  enum class Style : u8 { silent, lines, bar };
  static Style style_of(bool quiet);  // of this stderr

  explicit Progress(Style style) : style_(style) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;

  // The bar with the text behind it, at most ten times a second. Nothing in the other styles.
  void show(double fraction, const std::string& text);
  void line(const std::string& text);  // stays on screen, above the bar if there is one
  void clear();                        // takes the bar away
  Style style() const { return style_; }

 private:
  using Clock = std::chrono::steady_clock;
  Style style_;
  Clock::time_point begin_ = Clock::now(), shown_{};
  bool visible_ = false;
};

// The bar itself: "[=====     ]  37%  ETA 1m 20s  block 3/8", no wider than `width` columns.
std::string bar_text(double fraction, double seconds, const std::string& text, int width);

std::string rate_text(double tflops);  // "151 GFLOP/s", "1.2 TFLOP/s"

// "model.layers.3  loss 0.00123 -> 0.001 at 17  2.5 s  150 GFLOP/s (50 % of peak)  peak 0.5 GB". peak_tflops: what matrix
// products reach on this device, 0 if that is not known.
std::string block_line(const BlockReport& block, double peak_tflops);

}  // namespace signround
