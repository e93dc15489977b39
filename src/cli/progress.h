// Progress on stderr: on a terminal a bar with the time left, else a line a block. One writer, the thread that runs the command.
#pragma once
#include <chrono>
#include <string>

#include "pipeline/quantize.h"

namespace signround {

class Progress {
 public:
  enum class Style : u8 { silent, lines, bar };
  static Style style(bool quiet);  // of this stderr

  explicit Progress(Style style) : style_(style) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;

  // The bar, at most ten times a second; `left` of `right` after it: "block 3/8". Nothing in the other styles.
  void show(double fraction, const std::string& text);
  void line(const std::string& text);  // stays on screen, above the bar if there is one
  void clear();                        // takes the bar away
  bool has_bar() const { return style_ == Style::bar; }

 private:
  using Clock = std::chrono::steady_clock;
  Style style_;
  Clock::time_point begin_ = Clock::now(), shown_{};
  bool visible_ = false;
};

// The bar itself: "[=====>    ]  37%  block 3/8  ETA 1m 20s", no wider than `width` columns.
std::string bar_text(double fraction, double seconds, const std::string& text, int width);

// "model.layers.3  loss 1.31e-04 -> 9.8e-05 at 187  12.3 s  151 GFLOP/s  peak 0.5 GB"
std::string block_line(const BlockReport& block);

}  // namespace signround
