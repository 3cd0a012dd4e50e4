// The page's script: opening the tab from elsewhere, Ctrl+Enter, and a look at the checkpoint.

function cliext_element(name) {
    return document.getElementById(`cliext-${name}`);
}

function cliext_is_shown(element) {
    return Boolean(element && element.offsetParent);
}

// Opens a tab by its content; Gradio 3 gives the buttons no ids, but puts them in the same order.
function cliext_open_tab(content) {
    if (!content) {
        return;
    }
    const tabs = content.parentElement;
    const contents = Array.from(tabs.children).filter((one) => one.classList.contains("tabitem"));
    const buttons = tabs.querySelectorAll(":scope > .tab-nav > button");
    const button = document.getElementById(`${content.id}-button`) || buttons[contents.indexOf(content)];
    button?.click();
}

// Opens the Interrogator tab of a WebUI; called after a picture was sent there.
function cliext_open() {
    cliext_open_tab(document.getElementById("tab_cliext"));
    cliext_open_tab(cliext_element("tab-prompt"));
    return Array.from(arguments);
}

// Ctrl+Enter generates, starts a batch or analyzes, whichever tab is shown.
document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) {
        return;
    }
    for (const name of ["generate", "batch-start", "analyze"]) {
        const button = cliext_element(name);
        if (cliext_is_shown(button)) {
            if (event.repeat || button.disabled) {
                return;
            }
            // A box that is being written in hands over its text when it is left.
            document.activeElement?.blur?.();
            window.setTimeout(() => button.click(), 50);
            event.preventDefault();
            event.stopPropagation();
            return;
        }
    }
}, true);

// Presses a hidden button, but not while files are being uploaded: Gradio 3 forgets an upload when
// another answer comes meanwhile.
function cliext_press(name) {
    const files = ["batch-files", "lists-files"].map(cliext_element);
    if (!files.some((box) => box?.querySelector(".generating"))) {
        cliext_element(name)?.click();
    }
}

// Presses a hidden button whenever another one comes into view: the target generator follows the
// loaded checkpoint, and batches are shown that were started before the page was loaded.
function cliext_press_when_seen(button, pressed) {
    const seen = new IntersectionObserver((entries) => {
        if (entries.some((entry) => entry.isIntersecting)) {
            cliext_press(pressed);
        }
    });
    const waiting = window.setInterval(() => {
        const element = cliext_element(button);
        if (element) {
            window.clearInterval(waiting);
            seen.observe(element);
        }
    }, 500);
}

cliext_press_when_seen("generate", "from-checkpoint");
cliext_press_when_seen("batch-start", "batch-look");

// While a batch goes on and is in view, the page asks every second how far it is. An answer comes as
// a new element; where none has come, the page waits a little longer before it asks again.
window.setInterval(() => {
    const batch = document.querySelector("#cliext-batch-status [data-going-on]");
    if (cliext_is_shown(batch) && Date.now() - Number(batch.dataset.asked || 0) > 3000) {
        batch.dataset.asked = Date.now();
        cliext_press("batch-look");
    }
}, 1000);
